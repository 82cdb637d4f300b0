//! Any bytes as a manifest: refused, or read the same object by object and whole. Checksums are put right, so that what
//! is behind them is reached.

use std::fs;
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};
use staithe_fs::{FsErrorKind, Manifest, ManifestReader, ViewObject};
use staithe_store::ListRequest;

const MAGIC: &[u8; 16] = b"staithe manifest";

/// A manifest with this header and these blocks, each with the number of objects that it is said to have.
pub(crate) fn build(header: &[u8], blocks: &[(u32, &[u8])], objects: u64, in_memory: u64) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend(1_u32.to_le_bytes());
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.extend(crc32_iscsi(header).to_le_bytes());
    for (objects, block) in blocks {
        let packed = lz4_flex::block::compress(block);
        let mut frame = vec![1];
        frame.extend((packed.len() as u32).to_le_bytes());
        frame.extend((block.len() as u32).to_le_bytes());
        frame.extend(objects.to_le_bytes());
        frame.extend(packed);
        let sum = crc32_iscsi(&frame);
        file.extend(frame);
        file.extend(sum.to_le_bytes());
    }
    let mut footer = vec![2];
    footer.extend(objects.to_le_bytes());
    footer.extend(in_memory.to_le_bytes());
    let mut whole = Digest::new(CrcAlgorithm::Crc64Nvme);
    whole.update(&file);
    whole.update(&footer);
    footer.extend(whole.finalize().to_le_bytes());
    let sum = crc32_iscsi(&footer);
    file.extend(footer);
    file.extend(sum.to_le_bytes());
    file
}

/// A header of a volume without a prefix.
pub(crate) const HEADER: &[u8] =
    br#"{"volume":"v","url":"u","prefix":"","created_ms":1,"as_of_ms":null,"more":[]}"#;

/// Reads it in both ways. `None`: refused, in both.
pub(crate) fn read(file: &Path) -> Option<Vec<ViewObject>> {
    let one_by_one = || {
        let mut reader = ManifestReader::open(file)?;
        let mut objects = Vec::new();
        while let Some(object) = reader.next_object()? {
            objects.push(object);
        }
        Ok(objects)
    };
    let refused = |error: staithe_fs::FsError| {
        assert_eq!(error.kind(), FsErrorKind::Invalid, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    };
    let (objects, whole) = match (one_by_one(), Manifest::load(file)) {
        (Ok(objects), Ok(whole)) => (objects, whole),
        // Only who loads it needs to believe how much memory it takes.
        (Ok(_), Err(error)) | (Err(error), Err(_)) => {
            refused(error);
            return None;
        }
        (Err(error), Ok(_)) => panic!("loaded, though it cannot be read: {error}"),
    };
    assert_eq!(whole.len(), objects.len());
    assert!(objects.windows(2).all(|pair| pair[0].key < pair[1].key));
    for object in &objects {
        assert_eq!(whole.find(&object.key).as_ref(), Some(object));
    }
    let (mut listed, mut token) = (Vec::new(), None);
    loop {
        let page = whole.list(&ListRequest { token, ..ListRequest::default() }).unwrap();
        listed.extend(page.objects.into_iter().map(ViewObject::from));
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(listed, objects);
    Some(objects)
}

/// The first byte chooses: the rest is a file, a header, blocks behind a good header, or what a file is cut down to.
pub(crate) fn run_bytes(bytes: &[u8], file: &Path) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let made = match choice % 4 {
        0 => rest.to_vec(),
        1 => build(rest, &[], 0, 0),
        2 => build(HEADER, &[], 0, 0).into_iter().take(rest.len()).chain(rest.iter().copied()).collect(),
        _ => {
            let Some((&[objects, says, room], rest)) = rest.split_first_chunk::<3>() else { return };
            let (one, two) = rest.split_at(rest.len() / 2);
            let blocks = [(u32::from(objects), one), (u32::from(says), two)];
            let blocks = if two.is_empty() || says == 0 { &blocks[..1] } else { &blocks };
            build(HEADER, blocks, u64::from(objects) + u64::from(says), u64::from(room) << 4)
        }
    };
    fs::write(file, made).unwrap();
    read(file);
}
