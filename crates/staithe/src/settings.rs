//! The command line, checked: everything that can be wrong without asking the store is found here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use rustix::process::{getegid, geteuid};
use staithe_fs::{AttributeSource, CacheConfig, FsConfig, Ttl};
use staithe_fuse::FuseConfig;

use crate::audit::Place;
use crate::failure::{Failure, chain};
use crate::live::LiveSettings;
use crate::options::{
    AccessOptions, AttributesFrom, CacheOptions, LogFormat, MountOptions, OnGone, StoreOptions, WriteMode,
};
use crate::places;
use crate::source::Source;

/// Below this, not even one part of an upload fits.
const LEAST_MEMORY: u64 = 32 << 20;

/// What the disk cache may hold unless something else is asked for.
const CACHE_SIZE: u64 = 10 << 30;
/// Below this, little of use fits beside the cache's own directories, which take 1 MiB in time.
const LEAST_CACHE: u64 = 4 << 20;

/// Below this, writers would wait for one another all the time.
const LEAST_STAGING: u64 = 16 << 20;

/// All that a mount needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The source as it was given.
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) store: StoreOptions,
    /// The manifest of what is shown; `None`: what the bucket holds.
    pub(crate) view: Option<PathBuf>,
    pub(crate) fs: FsConfig,
    pub(crate) fuse: FuseConfig,
    /// What it begins with of what may change later.
    pub(crate) live: LiveSettings,
    pub(crate) on_gone: OnGone,
    pub(crate) audit: Place,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log_format: LogFormat,
    pub(crate) background: bool,
    pub(crate) detached: bool,
}

impl Settings {
    /// Checks the options of `staithe mount`.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub(crate) fn check(mut options: MountOptions) -> Result<Self, Failure> {
        let source = Source::parse(&options.source).map_err(Failure::usage)?;
        check_store(&source, &options.store)?;
        let view = view(&mut options, source.prefix())?;
        let mountpoint = places::full_path(&options.mountpoint);
        if let Some(directory) = source.directory() {
            check_apart(&places::full_path(directory), &mountpoint)?;
        }
        let state_dir = match &options.state_dir {
            Some(dir) => places::full_path(dir),
            // What another kind of mount left unfinished there, this one could not finish.
            None if view.is_some() => {
                places::state_dir(&default_home()?, &format!("{} view", options.source), &mountpoint)
            }
            None => places::state_dir(&default_home()?, &options.source, &mountpoint),
        };
        let cache = cache(&options.cache, &mountpoint)?;
        let live = LiveSettings::check(&options)?;
        let memory_limit = memory_limit(&options.limits.memory_limit)?;
        let mut fuse = FuseConfig::new(mountpoint, &options.source);
        fuse.allow_other = options.access.allow_other;
        fuse.read_only = options.access.read_only;
        let audit_log = options.fate.audit_log.as_deref().map(|path| match path.to_str() {
            Some("syslog") => path.to_owned(),
            _ => places::full_path(path),
        });
        Ok(Self {
            on_gone: options.fate.on_volume_gone,
            audit: Place::of(audit_log.as_deref(), &state_dir),
            metrics: options.fate.metrics,
            fs: FsConfig {
                cache,
                write_mode: match options.write_mode {
                    WriteMode::Through => staithe_fs::WriteMode::Through,
                    WriteMode::Back => staithe_fs::WriteMode::Back,
                },
                staging_size: options.staging_size.as_deref().map(staging_size).transpose()?,
                keep_attributes: !matches!(source, Source::Memory),
                live: live.fs(),
                memory_limit,
                accept_new_volume: options.fate.accept_new_volume,
                ..filesystem(&options.access, source.prefix(), state_dir)?
            },
            fuse,
            name: options.source,
            source,
            store: options.store,
            view,
            live,
            log_format: options.log_format,
            background: options.background,
            detached: options.detached,
        })
    }
}

/// Makes a mount of a view read-only, and one that believes what it was told; checks that the manifest is one, of this
/// prefix. Of which volume it is, only the store can tell.
fn view(options: &mut MountOptions, prefix: &str) -> Result<Option<PathBuf>, Failure> {
    let Some(file) = &options.snapshot else { return Ok(None) };
    if options.write_mode == WriteMode::Back {
        return Err(Failure::usage("--write-mode back has nothing to write with --snapshot"));
    }
    let file = places::full_path(file);
    let header =
        staithe_fs::read_header(&file).map_err(|e| Failure::usage(format!("--snapshot {}", chain(&e))))?;
    if header.prefix != prefix {
        let (file, is_of) = (file.display(), &header.prefix);
        return Err(Failure::usage(format!(
            "--snapshot {file} is of the prefix {is_of:?}, not of {prefix:?}"
        )));
    }
    options.access.read_only = true;
    options.limits.metadata_ttl.get_or_insert_with(|| "forever".to_owned());
    Ok(Some(file))
}

fn staging_size(text: &str) -> Result<u64, Failure> {
    let bytes = size("--staging-size", text)?;
    if bytes < LEAST_STAGING {
        return Err(Failure::usage("--staging-size must be at least 16MiB"));
    }
    Ok(bytes)
}

/// Refuses store options that the source has no use for, and an endpoint that is none.
pub(crate) fn check_store(source: &Source, options: &StoreOptions) -> Result<(), Failure> {
    if let Some(url) = &options.endpoint_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err(Failure::usage(format!("--endpoint-url {url:?} must begin with http:// or https://")));
    }
    if matches!(source, Source::S3 { .. }) {
        return Ok(());
    }
    let given = [
        ("--endpoint-url", options.endpoint_url.is_some()),
        ("--region", options.region.is_some()),
        ("--profile", options.profile.is_some()),
        ("--path-style", options.path_style),
        ("--no-sign-request", options.no_sign_request),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::usage(format!("{name} is only for sources that begin with s3://"))),
        None => Ok(()),
    }
}

/// Where fetched bytes are kept, if anywhere.
fn cache(options: &CacheOptions, mountpoint: &Path) -> Result<Option<CacheConfig>, Failure> {
    let Some(dir) = &options.cache_dir else {
        return match options.cache_size {
            Some(_) => Err(Failure::usage("--cache-size needs a directory: name one with --cache-dir")),
            None => Ok(None),
        };
    };
    let dir = places::full_path(dir);
    if dir.starts_with(mountpoint) {
        let (dir, mountpoint) = (dir.display(), mountpoint.display());
        return Err(Failure::usage(format!("--cache-dir {dir} lies in the mount point {mountpoint}")));
    }
    let size = options.cache_size.as_deref().map_or(Ok(CACHE_SIZE), |text| size("--cache-size", text))?;
    if size < LEAST_CACHE {
        return Err(Failure::usage("--cache-size must be at least 4MiB"));
    }
    let config = CacheConfig { dir, size };
    config.check().map_err(|error| Failure::usage(chain(&error)))?;
    Ok(Some(config))
}

fn memory_limit(text: &str) -> Result<u64, Failure> {
    let bytes = size("--memory-limit", text)?;
    if bytes < LEAST_MEMORY {
        return Err(Failure::usage("--memory-limit must be at least 32MiB"));
    }
    Ok(bytes)
}

fn filesystem(access: &AccessOptions, prefix: &str, state_dir: PathBuf) -> Result<FsConfig, Failure> {
    let by_default = if access.read_only { AttributesFrom::Listing } else { AttributesFrom::Full };
    Ok(FsConfig {
        prefix: prefix.to_owned(),
        read_only: access.read_only,
        uid: access.uid.unwrap_or_else(|| geteuid().as_raw()),
        gid: access.gid.unwrap_or_else(|| getegid().as_raw()),
        file_mode: mode("--file-mode", &access.file_mode)?,
        dir_mode: mode("--dir-mode", &access.dir_mode)?,
        attributes: match access.attributes.unwrap_or(by_default) {
            AttributesFrom::Full => AttributeSource::Full,
            AttributesFrom::Listing => AttributeSource::Listing,
        },
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        ..FsConfig::new(state_dir)
    })
}

fn default_home() -> Result<PathBuf, Failure> {
    places::state_home()
        .ok_or_else(|| Failure::usage("there is no home directory for the state; name one with --state-dir"))
}

/// Each would answer for the other: a mount inside its own source, or the source inside the mount.
fn check_apart(directory: &Path, mountpoint: &Path) -> Result<(), Failure> {
    if directory.starts_with(mountpoint) || mountpoint.starts_with(directory) {
        return Err(Failure::usage(format!(
            "the mount point {} and the source {} lie in one another; choose directories apart",
            mountpoint.display(),
            directory.display()
        )));
    }
    Ok(())
}

pub(crate) fn ttl(option: &str, text: &str) -> Result<Ttl, Failure> {
    if text == "forever" {
        return Ok(Ttl::Forever);
    }
    match duration(option, text, "1s, 5min, 0 or forever")? {
        Duration::ZERO => Ok(Ttl::Zero),
        duration => Ok(Ttl::For(duration)),
    }
}

pub(crate) fn duration(option: &str, text: &str, examples: &str) -> Result<Duration, Failure> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| Failure::usage(format!("{option} {text:?} is no duration; write {examples}")))
}

fn size(option: &str, text: &str) -> Result<u64, Failure> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| Failure::usage(format!("{option} {text:?} is no size; write 512MiB or 2GiB")))
}

fn mode(option: &str, text: &str) -> Result<u16, Failure> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| Failure::usage(format!("{option} {text:?} is no mode; write it in octal, as 644")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_modes() {
        assert_eq!(ttl("--o", "0").unwrap(), Ttl::Zero);
        assert_eq!(ttl("--o", "0s").unwrap(), Ttl::Zero);
        assert_eq!(ttl("--o", "forever").unwrap(), Ttl::Forever);
        assert_eq!(ttl("--o", "1500ms").unwrap(), Ttl::For(Duration::from_millis(1500)));
        assert_eq!(duration("--o", "2min", "").unwrap(), Duration::from_mins(2));
        assert_eq!(size("--o", "64MiB").unwrap(), 64 << 20);
        assert_eq!(mode("--o", "0640").unwrap(), 0o640);
        for wrong in [
            ttl("--o", "soon").unwrap_err(),
            duration("--o", "forever", "1s").unwrap_err(),
            size("--o", "much").unwrap_err(),
            mode("--o", "888").unwrap_err(),
            mode("--o", "100644").unwrap_err(),
        ] {
            assert!(wrong.sentence.starts_with("--o "), "{wrong}");
        }
    }

    #[test]
    fn a_mount_does_not_lie_in_its_source() {
        let apart = |a: &str, b: &str| check_apart(Path::new(a), Path::new(b)).is_ok();
        assert!(apart("/a/b", "/a/c"));
        assert!(apart("/a/b", "/a/bc"));
        assert!(!apart("/a", "/a"));
        assert!(!apart("/a", "/a/b"));
        assert!(!apart("/a/b", "/a"));
    }
}
