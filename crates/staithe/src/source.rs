//! A source: what the command line calls it, and the store behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use staithe_s3::{S3Config, S3Store};
use staithe_store::{DirectoryOptions, DirectoryStore, MemoryOptions, MemoryStore, ObjectStore, StoreError};

use crate::options::StoreOptions;

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A bucket, and the prefix that is the root (empty, or ending in `/`).
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix.
        prefix: String,
    },
    /// A local directory.
    Directory(PathBuf),
    /// Memory of the daemon; gone when it ends.
    Memory,
}

impl Source {
    /// Reads a source as it stands on the command line.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            format!("{text:?} is no source; it must be s3://bucket[/prefix], file:///directory or memory://")
        })?;
        match scheme {
            "s3" => parse_s3(text, rest),
            "file" if rest.starts_with('/') => Ok(Self::Directory(PathBuf::from(rest))),
            "file" => Err(format!("{text:?} must name a directory by its full path: file:///directory")),
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "memory" => Err(format!("{text:?} has something after memory://, which has no parts")),
            other => Err(format!("{other}:// is no kind of store; there are s3://, file:// and memory://")),
        }
    }

    /// The prefix of the keys that are mounted.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::S3 { prefix, .. } => prefix,
            Self::Directory(_) | Self::Memory => "",
        }
    }

    /// The directory behind it, if it is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            _ => None,
        }
    }
}

fn parse_s3(text: &str, rest: &str) -> Result<Source, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(format!("{text:?} names no bucket; it must be s3://bucket[/prefix]"));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.split('/').any(str::is_empty) && !prefix.is_empty() {
        return Err(format!("the prefix {prefix:?} has an empty part"));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Source::S3 { bucket: bucket.to_owned(), prefix })
}

/// A store that is open.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same, if its requests are signed: of this one, the credentials can be renewed.
    pub(crate) signed: Option<S3Store>,
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    /// Whether it may find out by writing (and removing) what an S3 server honours.
    pub(crate) may_write: bool,
    /// Whether whoever uses it tries again by itself, and wants to see every failure.
    pub(crate) tries_again: bool,
}

/// Opens the store.
///
/// # Errors
/// As the store gives them.
pub(crate) async fn open(
    source: &Source,
    options: &StoreOptions,
    access: Access,
) -> Result<Opened, StoreError> {
    let store: Arc<dyn ObjectStore> = match source {
        Source::Memory => Arc::new(MemoryStore::new(MemoryOptions::default())),
        Source::Directory(path) => Arc::new(DirectoryStore::open(path, DirectoryOptions::default())?),
        Source::S3 { bucket, prefix } => {
            let config = S3Config {
                endpoint_url: options.endpoint_url.clone(),
                region: options.region.clone(),
                profile: options.profile.clone(),
                path_style: options.path_style.then_some(true),
                no_sign_request: options.no_sign_request,
                probe_conditions: access.may_write,
                max_attempts_once_open: access.tries_again.then_some(1),
                scratch_prefix: prefix.clone(),
                ..S3Config::new(bucket)
            };
            let store = S3Store::connect(config).await?;
            let signed = (!options.no_sign_request).then(|| store.clone());
            return Ok(Opened { store: Arc::new(store), signed });
        }
    };
    Ok(Opened { store, signed: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> Source {
        Source::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() }
    }

    #[test]
    fn sources() {
        assert_eq!(Source::parse("s3://b"), Ok(s3("b", "")));
        assert_eq!(Source::parse("s3://b/"), Ok(s3("b", "")));
        assert_eq!(Source::parse("s3://b/a/c"), Ok(s3("b", "a/c/")));
        assert_eq!(Source::parse("s3://b/a/c/"), Ok(s3("b", "a/c/")));
        assert_eq!(Source::parse("file:///a b"), Ok(Source::Directory(PathBuf::from("/a b"))));
        assert_eq!(Source::parse("memory://"), Ok(Source::Memory));
    }

    #[test]
    fn what_is_no_source() {
        for (text, word) in [
            ("bucket", "no source"),
            ("s3://", "no bucket"),
            ("s3://b//c", "empty part"),
            ("file://directory", "full path"),
            ("memory://x", "no parts"),
            ("gs://b", "gs://"),
        ] {
            let sentence = Source::parse(text).unwrap_err();
            assert!(sentence.contains(word), "{text}: {sentence}");
        }
    }
}
