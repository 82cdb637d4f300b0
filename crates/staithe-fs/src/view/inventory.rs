//! Manifests out of an S3 Inventory: the listings that the store itself writes once a day or a week.
//!
//! An inventory is a `manifest.json` and data files that it names: CSV without a head line, gzipped, whose columns
//! `fileSchema` names, with keys in URL encoding. Amazon S3 User Guide, "Amazon S3 Inventory".

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;
use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use staithe_store::{ETag, Key, Version, VersionId};

use super::file::ManifestWriter;
use super::format::{ManifestHeader, time_since_1970};
use super::object::{SIZE_MAX, ViewObject};
use super::sort::Sorter;
use super::take::Taken;
use crate::error::{FsError, FsErrorKind, Result};

/// What objects may take in memory while they are brought into order.
const SORT_ROOM: usize = 256 << 20;
/// Longest manifest.json, in bytes.
const JSON_MAX: u64 = 256 << 20;
/// Objects between two words about the progress.
const NEWS_EVERY: u64 = 10_000;

/// An inventory that lies on the local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The bucket that it lists.
    pub bucket: String,
    /// When it was begun.
    pub created: SystemTime,
    file: PathBuf,
    columns: Columns,
    data: Vec<Data>,
}

/// A data file of an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Data {
    path: PathBuf,
    /// In hexadecimal digits; empty if the inventory does not tell.
    md5: String,
}

/// Where in a line what stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Columns {
    bucket: Option<usize>,
    key: usize,
    size: usize,
    modified: usize,
    etag: usize,
    version: Option<usize>,
    is_latest: Option<usize>,
    is_delete_marker: Option<usize>,
}

impl Inventory {
    /// Reads a `manifest.json`. Its data files are looked for beside it, in `data` beside it, and in `data` beside its
    /// directory, where S3 puts them.
    ///
    /// # Errors
    /// `Invalid`, `Io`: one sentence, with the causes.
    pub fn open(file: &Path) -> Result<Self> {
        let cannot = |e| FsError::local(&format!("{} cannot be read", file.display()), e);
        let mut text = Vec::new();
        File::open(file).and_then(|f| f.take(JSON_MAX).read_to_end(&mut text)).map_err(cannot)?;
        let wrong = |what: &str| FsError::new(FsErrorKind::Invalid, format!("{}: {what}", file.display()));
        let json: Value =
            serde_json::from_slice(&text).map_err(|_| wrong("it is no manifest.json of an S3 Inventory"))?;
        let string = |name: &str| json[name].as_str().ok_or_else(|| wrong(&format!("it says no {name}")));
        if string("fileFormat")? != "CSV" {
            return Err(wrong("the inventory is not in CSV; have it written in that format"));
        }
        let columns = Columns::of(string("fileSchema")?).map_err(|missing| {
            wrong(&format!("the inventory has no field {missing}; have it written with that"))
        })?;
        let created = string("creationTimestamp")?.parse().ok().map(Duration::from_millis);
        let created = created.and_then(time_since_1970).ok_or_else(|| wrong("it says no time"))?;
        let listed = json["files"].as_array().ok_or_else(|| wrong("it names no files"))?;
        let data = listed.iter().map(|data| {
            let key = data["key"].as_str().ok_or_else(|| wrong("it names a file without a key"))?;
            let path = find_data(file, key).ok_or_else(|| wrong(&format!("{key:?} is not beside it")))?;
            Ok(Data { path, md5: data["MD5checksum"].as_str().unwrap_or_default().to_ascii_lowercase() })
        });
        Ok(Self {
            bucket: string("sourceBucket")?.to_owned(),
            created,
            data: data.collect::<Result<_>>()?,
            file: file.to_owned(),
            columns,
        })
    }
}

impl Columns {
    /// Where the fields are that `schema` names; the first one that is missing.
    fn of(schema: &str) -> Result<Self, &'static str> {
        let at = |name: &str| schema.split(',').position(|field| field.trim() == name);
        Ok(Self {
            bucket: at("Bucket"),
            key: at("Key").ok_or("Key")?,
            size: at("Size").ok_or("Size")?,
            modified: at("LastModifiedDate").ok_or("LastModifiedDate")?,
            etag: at("ETag").ok_or("ETag")?,
            version: at("VersionId"),
            is_latest: at("IsLatest"),
            is_delete_marker: at("IsDeleteMarker"),
        })
    }

    /// The object of a line; `None` for what is no latest version. In the error what is wrong with it.
    fn object(&self, line: &csv::StringRecord) -> Result<Option<ViewObject>, &'static str> {
        let field = |at: usize| line.get(at).ok_or("it has too few fields");
        let says = |at: Option<usize>, what| at.map_or(Ok(false), |at| field(at).map(|said| said == what));
        if says(self.is_delete_marker, "true")? || says(self.is_latest, "false")? {
            return Ok(None);
        }
        // A space is written as a plus, a plus as %2B.
        let key = field(self.key)?.replace('+', " ");
        let key = percent_decode_str(&key).decode_utf8().map_err(|_| "the key is not UTF-8")?;
        let etag = field(self.etag)?;
        let etag = if etag.starts_with('"') { etag.to_owned() } else { format!("\"{etag}\"") };
        let id = self.version.map(field).transpose()?.filter(|id| !id.is_empty()).map(VersionId::new);
        Ok(Some(ViewObject {
            key: Key::new(key).map_err(|_| "the key is empty, or too long")?,
            size: field(self.size)?
                .parse()
                .ok()
                .filter(|size| *size <= SIZE_MAX)
                .ok_or("the size is none")?,
            version: Version { etag: ETag::new(etag), id },
            modified: humantime::parse_rfc3339_weak(field(self.modified)?).map_err(|_| "the time is none")?,
        }))
    }
}

fn find_data(manifest: &Path, key: &str) -> Option<PathBuf> {
    let name = Path::new(key).file_name()?;
    let dir = manifest.parent()?;
    let places = [dir.join(name), dir.join("data").join(name), dir.join("../data").join(name)];
    places.into_iter().find(|path| path.exists())
}

/// Writes what an inventory lists below a prefix into `target`. `volume` and `url` are the store's whose bucket it is.
/// In bounded memory; what is not in order is sorted on the disk, beside `target`. `progress` hears of it now and then, and
/// ends it with an error.
///
/// # Errors
/// `Invalid` for what makes no sense, or does not match its checksum; `NoSpace` and `Io`. Nothing is left of the file then.
pub fn take_inventory(
    inventory: &Inventory,
    volume: String,
    url: String,
    prefix: &str,
    target: &Path,
    mut progress: impl FnMut(Taken) -> Result<()>,
) -> Result<Taken> {
    let header =
        ManifestHeader { volume, url, prefix: prefix.to_owned(), created: inventory.created, as_of: None };
    let mut sorter = Sorter::new(target, SORT_ROOM);
    let mut read = Taken::default();
    for data in &inventory.data {
        inventory.read(data, |object| {
            if !object.key.as_str().starts_with(prefix) {
                return Ok(());
            }
            read.objects += 1;
            read.bytes = read.bytes.saturating_add(object.size);
            if read.objects % NEWS_EVERY == 0 {
                progress(read)?;
            }
            sorter.push(object)
        })?;
    }
    let mut writer = ManifestWriter::create(target, &header)?;
    sorter.finish(|object| writer.push(object))?;
    let written = writer.objects();
    writer.finish()?;
    debug_assert_eq!(written, read.objects);
    Ok(read)
}

impl Inventory {
    fn read(&self, data: &Data, mut put: impl FnMut(ViewObject) -> Result<()>) -> Result<()> {
        let cannot = |e| FsError::local(&format!("{} cannot be read", data.path.display()), e);
        let wrong = |line: u64, what: &str| {
            FsError::new(FsErrorKind::Invalid, format!("{}, line {line}: {what}", data.path.display()))
        };
        let summed = Summed { input: File::open(&data.path).map_err(cannot)?, md5: Md5::new() };
        let unpacked = MultiGzDecoder::new(BufReader::with_capacity(256 << 10, summed));
        let mut lines = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(unpacked);
        let mut line = csv::StringRecord::new();
        let mut number = 0;
        loop {
            number += 1;
            match lines.read_record(&mut line) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let what = format!("{}, line {number}, cannot be read", data.path.display());
                    return Err(FsError::caused(FsErrorKind::Invalid, what, error));
                }
            }
            let bucket = self.columns.bucket.and_then(|at| line.get(at));
            if bucket.is_some_and(|bucket| bucket != self.bucket) {
                return Err(wrong(number, "it is of another bucket"));
            }
            if let Some(object) = self.columns.object(&line).map_err(|what| wrong(number, what))? {
                put(object)?;
            }
        }
        let digest = lines.into_inner().into_inner().into_inner().finish().map_err(cannot)?;
        if !data.md5.is_empty() && digest != data.md5 {
            let what =
                format!("{} does not match the checksum in {}", data.path.display(), self.file.display());
            return Err(FsError::new(FsErrorKind::Invalid, what));
        }
        Ok(())
    }
}

/// Sums up what is read.
struct Summed {
    input: File,
    md5: Md5,
}

impl Read for Summed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.md5.update(&buffer[..read]);
        Ok(read)
    }
}

impl Summed {
    /// The checksum of the whole file, also of what nobody wanted to read.
    fn finish(mut self) -> std::io::Result<String> {
        std::io::copy(&mut self, &mut std::io::sink())?;
        let digest = self.md5.finalize();
        let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Ok(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect())
    }
}

#[cfg(test)]
mod tests;
