//! What a server says wrongly of a write, or does wrongly with it; travels with the request to where it has its effect.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::S3Request;
use s3s::dto::{Checksum, ETag};
use staithe_store::Payload;

/// The lies about one write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lie {
    /// The checksum of the answer is of other bytes.
    pub(crate) checksum: bool,
    /// The entity tag of the answer is of other bytes.
    pub(crate) tag: bool,
    /// The byte here is not stored.
    pub(crate) lost_byte: Option<u64>,
    /// The byte here is stored inverted.
    pub(crate) spoiled_byte: Option<u64>,
}

impl Lie {
    /// What is to become of this request.
    pub(crate) fn of<T>(request: &S3Request<T>) -> Self {
        request.extensions.get().copied().unwrap_or_default()
    }

    /// Whether something else is stored than what came.
    pub(crate) fn is_of_bytes(self) -> bool {
        self.lost_byte.is_some() || self.spoiled_byte.is_some()
    }

    /// What is stored of what came.
    pub(crate) fn stored(self, payload: &Payload) -> Payload {
        let mut bytes = payload.to_bytes().to_vec();
        if let Some(byte) = self.spoiled_byte.and_then(|at| bytes.get_mut(at as usize)) {
            *byte ^= 0xff;
        }
        if let Some(at) = self.lost_byte.filter(|at| *at < payload.len()) {
            bytes.remove(at as usize);
        }
        Payload::from(bytes)
    }

    /// The checksum as it is answered.
    pub(crate) fn told(self, mut sum: Checksum) -> Checksum {
        if self.checksum {
            let Checksum { checksum_crc32, checksum_crc32c, checksum_crc64nvme, .. } = &mut sum;
            let shorts = [checksum_crc32, checksum_crc32c, checksum_crc64nvme];
            shorts.into_iter().flatten().for_each(|text| *text = inverted(text));
        }
        sum
    }

    /// The tag as it is answered.
    pub(crate) fn told_tag(self, tag: ETag) -> ETag {
        match tag {
            // Another one of the same form.
            ETag::Strong(text) if self.tag => {
                let first = if text.starts_with('0') { '1' } else { '0' };
                ETag::Strong(text.chars().skip(1).fold(String::from(first), |tag, c| tag + &c.to_string()))
            }
            tag => tag,
        }
    }
}

/// The checksum with its first byte inverted.
fn inverted(text: &str) -> String {
    let mut bytes = BASE64.decode(text).unwrap_or_default();
    if let Some(byte) = bytes.first_mut() {
        *byte ^= 0xff;
    }
    BASE64.encode(bytes)
}
