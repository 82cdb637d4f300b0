//! Manifests as files: whole at their place or not there, and read from the disk piece by piece.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use super::decode::Decoder;
use super::encode::Encoder;
use super::format::ManifestHeader;
use super::object::ViewObject;
use crate::error::{FsError, FsErrorKind, Result};

/// Bytes between the disk and a reader or a writer.
const BUFFER: usize = 256 << 10;

/// A manifest that is being written, beside its place. Dropped unfinished, it leaves nothing.
pub(super) struct ManifestWriter {
    encoder: Option<Encoder<BufWriter<File>>>,
    aside: PathBuf,
    target: PathBuf,
}

impl ManifestWriter {
    pub(super) fn create(target: &Path, header: &ManifestHeader) -> Result<Self> {
        let target = replaceable(target)?;
        let aside = beside(&target)?;
        let file = create_new(&aside, &target)?;
        let mut writer = Self { encoder: None, aside, target };
        let encoder = Encoder::new(BufWriter::with_capacity(BUFFER, file), header);
        writer.encoder = Some(encoder.map_err(|e| unwritten(&writer.target, e))?);
        Ok(writer)
    }

    /// Writes the next object, whose key is greater than the last one's.
    pub(super) fn push(&mut self, object: &ViewObject) -> Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        encoder.push(object).map_err(|refused| refused.of(&self.target))
    }

    /// How many objects were written.
    pub(super) fn objects(&self) -> u64 {
        self.encoder.as_ref().map_or(0, Encoder::objects)
    }

    /// Puts it at its place, durably.
    pub(super) fn finish(mut self) -> Result<()> {
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        let put = || {
            let file = encoder.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&self.aside, &self.target)?;
            let dir = self.target.parent().filter(|dir| !dir.as_os_str().is_empty());
            match File::open(dir.unwrap_or(Path::new(".")))?.sync_all() {
                // There are file systems that know of no such thing; it is at its place.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    Ok(())
                }
                synced => synced,
            }
        };
        put().map_err(|e| unwritten(&self.target, e))
    }
}

impl Drop for ManifestWriter {
    fn drop(&mut self) {
        // Not there any more once it has its place.
        let _ = std::fs::remove_file(&self.aside);
    }
}

/// The file that is to be written: what a symbolic link leads to is, and not the link.
fn replaceable(target: &Path) -> Result<PathBuf> {
    let Ok(there) = target.symlink_metadata() else { return Ok(target.to_owned()) };
    let target = if there.is_symlink() { target.canonicalize() } else { Ok(target.to_owned()) };
    let target = target.map_err(|e| FsError::local("the file to write cannot be found", e))?;
    match target.metadata() {
        Ok(there) if !there.is_file() => {
            let why = format!("{} is there, and no file", target.display());
            Err(FsError::new(FsErrorKind::Invalid, why))
        }
        _ => Ok(target),
    }
}

/// A name beside a file, for what is on its way to it.
pub(super) fn beside(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| {
        FsError::new(FsErrorKind::Invalid, format!("{} names no file to write", target.display()))
    })?;
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    Ok(target.with_file_name(aside))
}

/// Creates the file `path` for what is to become of `target`.
pub(super) fn create_new(path: &Path, target: &Path) -> Result<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    created.map_err(|e| unwritten(target, e))
}

pub(super) fn unwritten(target: &Path, error: std::io::Error) -> FsError {
    FsError::local(&format!("{} cannot be written", target.display()), error)
}

/// Reads a manifest file, object by object, in bounded memory.
pub struct ManifestReader {
    decoder: Decoder<BufReader<File>>,
    file: PathBuf,
}

impl std::fmt::Debug for ManifestReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestReader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl ManifestReader {
    /// Opens it and reads its header.
    ///
    /// # Errors
    /// One sentence, with the causes: `Invalid` for what is no manifest, or a damaged or newer one; `Io`.
    pub fn open(file: &Path) -> Result<Self> {
        let opened = File::open(file);
        let opened =
            opened.map_err(|e| FsError::local(&format!("{} cannot be opened", file.display()), e))?;
        let decoder =
            Decoder::new(BufReader::with_capacity(BUFFER, opened)).map_err(|fault| fault.of(file))?;
        Ok(Self { decoder, file: file.to_owned() })
    }

    /// What it is a listing of.
    pub fn header(&self) -> &ManifestHeader {
        self.decoder.header()
    }

    /// The next object, in the order of the keys' bytes; `None` at the end, when all of it was found to be whole. What
    /// came before holds only then.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn next_object(&mut self) -> Result<Option<ViewObject>> {
        match self.decoder.advance() {
            Ok(decoded) => Ok(decoded.map(|decoded| decoded.object)),
            Err(fault) => Err(fault.of(&self.file)),
        }
    }
}

/// What the manifest in a file is a listing of. The rest of it is not looked at.
///
/// # Errors
/// As [`ManifestReader::open`].
pub fn read_header(file: &Path) -> Result<ManifestHeader> {
    Ok(ManifestReader::open(file)?.header().clone())
}
