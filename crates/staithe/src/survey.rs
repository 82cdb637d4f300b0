//! Which objects of a bucket a mount cannot show.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use staithe_fs::hidden_reason;
use staithe_store::{ListRequest, ObjectStore, StoreError};

/// Examples kept of each kind.
const EXAMPLES: usize = 10;

/// What a listing of everything found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Objects in all.
    pub(crate) objects: u64,
    /// Why objects are hidden, how many, and the first of them.
    pub(crate) hidden: BTreeMap<String, Group>,
    /// Keys that were passed and may still turn out to be directories too: each is a prefix of the next.
    open: Vec<String>,
}

/// Objects that are hidden for the same reason.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) count: u64,
    pub(crate) examples: Vec<String>,
}

impl Survey {
    /// Lists everything below `prefix`, page by page; keeps counts and a few examples.
    ///
    /// # Errors
    /// As the store gives them.
    pub(crate) async fn of(store: &dyn ObjectStore, prefix: &str) -> Result<Self, StoreError> {
        let mut survey = Self::default();
        let mut request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        loop {
            let page = store.list(request.clone()).await?;
            for object in &page.objects {
                survey.see(object.key.as_str().strip_prefix(prefix).unwrap_or_default());
            }
            request.token = Some(match page.next {
                Some(next) => next,
                None => return Ok(survey),
            });
        }
    }

    /// Takes the next key in byte order, without the prefix.
    fn see(&mut self, key: &str) {
        self.objects += 1;
        if let Some(reason) = hidden_reason(key) {
            self.hide(reason.to_string(), key);
        }
        // Keys that share a prefix stand together, so what does not begin this key is done with.
        while self.open.last().is_some_and(|file| !key.starts_with(file.as_str())) {
            self.open.pop();
        }
        let below = |file: &String| key[file.len()..].starts_with('/');
        if let Some(at) = self.open.iter().position(below) {
            let file = self.open.remove(at);
            self.hide("a directory of the same name hides it".to_owned(), &file);
        }
        if !key.is_empty() && !key.ends_with('/') {
            self.open.push(key.to_owned());
        }
    }

    /// Adds what lies in a directory and is no object: links, pipes, sockets, devices, names that are no text.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn add_strangers(&mut self, root: &Path) -> io::Result<()> {
        let mut below = vec![PathBuf::new()];
        while let Some(dir) = below.pop() {
            for entry in std::fs::read_dir(root.join(&dir))? {
                let entry = entry?;
                let (path, kind) = (dir.join(entry.file_name()), entry.file_type()?);
                if path == Path::new(".staithe-tmp") {
                    continue;
                }
                let why = match kind {
                    _ if entry.file_name().to_str().is_none() => "the name is not UTF-8",
                    kind if kind.is_dir() => {
                        below.push(path);
                        continue;
                    }
                    kind if kind.is_file() => continue,
                    kind if kind.is_symlink() => "a symbolic link in the directory is not followed",
                    _ => "a FIFO, a socket or a device is no object",
                };
                self.hide(why.to_owned(), &path.to_string_lossy());
            }
        }
        Ok(())
    }

    fn hide(&mut self, reason: String, key: &str) {
        let group = self.hidden.entry(reason).or_default();
        group.count += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use staithe_store::{Key, MemoryOptions, MemoryStore, NewObject, Payload, PutCondition};

    use super::*;

    #[tokio::test]
    async fn what_a_mount_cannot_show_is_counted() {
        let store = MemoryStore::new(MemoryOptions { ..MemoryOptions::default() });
        let long = format!("p/{}", "n".repeat(256));
        let keys = ["p/a", "p/a!", "p/a/b", "p/a/c", "p/d//e", "p/../f", "p/g/", "p/h", "other//x", &long];
        for key in keys {
            let key = Key::new(key).unwrap();
            store.put(&key, Payload::from("x"), NewObject::default(), PutCondition::Always).await.unwrap();
        }
        let survey = Survey::of(&store, "p/").await.unwrap();
        assert_eq!(survey.objects, 9);
        let found: Vec<_> = survey.hidden.values().map(|g| (g.count, g.examples.join(" "))).collect();
        assert_eq!(survey.hidden.len(), 4, "{found:?}");
        assert!(found.contains(&(1, "a".to_owned())), "{found:?}");
        assert!(found.contains(&(1, "d//e".to_owned())), "{found:?}");
        assert!(found.contains(&(1, "../f".to_owned())), "{found:?}");
    }
}
