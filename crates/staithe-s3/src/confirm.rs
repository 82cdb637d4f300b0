//! What the server says of what it took in, compared with what was sent.
//!
//! Invariants:
//! 1. What an answer says is compared, wherever it says it; what it does not say is not asked for.
//! 2. The whole is claimed to be what its parts are only where the server has said the same of each of them: then it
//!    knows this checksum, and refuses a whole that is not that.
//! 3. A tag is taken for a checksum only where the scratch object's was one, and never of what is encrypted with a key
//!    of the customer's.

use crc_fast::{CrcAlgorithm, checksum_combine};
use staithe_store::{Crc64Nvme, ErrorKind, Key, PartReceipt, StoreError};

use crate::upload::{Sums, encode};

/// What an answer says of the bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told<'a> {
    /// `x-amz-checksum-crc64nvme`, or the element of that name.
    pub(crate) crc64: Option<&'a str>,
    /// The entity tag, where it is an MD5.
    pub(crate) tag: Option<&'a str>,
}

/// Compares; the checksum that both sides say, if they do.
///
/// # Errors
/// `Corrupt` where they say different things.
pub(crate) fn confirm(
    operation: &'static str,
    key: &Key,
    sent: &Sums,
    told: Told<'_>,
) -> Result<Option<Crc64Nvme>, StoreError> {
    let wrong = |what: &str, theirs: &str, ours: &str| {
        let message =
            format!("the server says it stored bytes with the {what} {theirs}; those sent have {ours}");
        Err(StoreError::new(ErrorKind::Corrupt, operation, message).with_key(key))
    };
    if let (Some(ours), Some(theirs)) = (sent.md5_tag(), told.tag.and_then(plain_md5))
        && !theirs.eq_ignore_ascii_case(&ours)
    {
        return wrong("MD5", theirs, &ours);
    }
    // A checksum of checksums has a dash behind it, and says nothing of the bytes.
    let (Some(ours), Some(theirs)) = (sent.crc64, told.crc64.filter(|sum| !sum.contains('-'))) else {
        return Ok(None);
    };
    if theirs == encode(ours) { Ok(Some(ours)) } else { wrong("CRC-64/NVME", theirs, &encode(ours)) }
}

/// The MD5 in a tag of an object that was not made of parts.
fn plain_md5(tag: &str) -> Option<&str> {
    let text = tag.trim_matches('"');
    (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

/// Whether a tag is the MD5 of what was sent.
pub(crate) fn is_md5_of(tag: &str, sent: &Sums) -> bool {
    let ours = sent.md5_tag();
    ours.is_some_and(|ours| plain_md5(tag).is_some_and(|theirs| theirs.eq_ignore_ascii_case(&ours)))
}

/// Whether what was stored has a tag that no client can compute.
pub(crate) fn hides_md5(kms_key: Option<&str>, customer_algorithm: Option<&str>) -> bool {
    kms_key.is_some() || customer_algorithm.is_some()
}

/// The checksum of an object made of these parts, if that of each is known. O(parts).
pub(crate) fn whole(parts: &[PartReceipt]) -> Option<Crc64Nvme> {
    let (first, rest) = parts.split_first()?;
    rest.iter().try_fold(first.crc64?, |Crc64Nvme(sum), part| {
        let next = part.crc64?.0;
        Some(Crc64Nvme(checksum_combine(CrcAlgorithm::Crc64Nvme, sum, next, part.size)))
    })
}

/// The length of an object made of these parts, in bytes.
pub(crate) fn length(parts: &[PartReceipt]) -> u64 {
    parts.iter().map(|part| part.size).sum()
}

#[cfg(test)]
mod tests {
    use staithe_store::{ETag, PartNumber, Payload};

    use super::*;
    use crate::config::UploadChecksum;
    use crate::upload::sums;

    fn crc(bytes: &[u8]) -> Crc64Nvme {
        sums(&Payload::from(bytes.to_vec()), UploadChecksum::Crc64Nvme).crc64.unwrap()
    }

    fn part(n: u16, bytes: &[u8]) -> PartReceipt {
        let number = PartNumber::new(n).unwrap();
        PartReceipt { number, etag: ETag::new("\"t\""), size: bytes.len() as u64, crc64: Some(crc(bytes)) }
    }

    #[test]
    fn parts_make_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n / 7) as u8).collect();
        let cuts = [0, 1, 5000, 5001, 99_999, 100_000];
        let mut parts: Vec<_> =
            cuts.windows(2).zip(1..).map(|(cut, n)| part(n, &bytes[cut[0]..cut[1]])).collect();
        assert_eq!(whole(&parts), Some(crc(&bytes)));
        assert_eq!(length(&parts), bytes.len() as u64);
        parts[2].crc64 = None;
        assert_eq!(whole(&parts), None);
        assert_eq!(whole(&[]), None);
    }

    #[test]
    fn what_is_said_is_compared_and_nothing_else() {
        let key = Key::new("k").unwrap();
        let body = Payload::from("hello world");
        let sent = sums(&body, UploadChecksum::Crc64Nvme);
        let ours = encode(sent.crc64.unwrap());
        let told = |crc64| Told { crc64, tag: Some("\"00000000000000000000000000000000\"") };
        assert_eq!(confirm("put", &key, &sent, told(Some(&ours))).unwrap(), sent.crc64);
        // A tag is not what was computed.
        assert_eq!(confirm("put", &key, &sent, told(None)).unwrap(), None);
        assert_eq!(confirm("put", &key, &sent, told(Some("AAAAAAAAAAA=-3"))).unwrap(), None);
        for wrong in ["AAAAAAAAAAA=", "", "nonsense"] {
            let error = confirm("put", &key, &sent, told(Some(wrong))).unwrap_err();
            assert_eq!((error.kind(), error.operation()), (ErrorKind::Corrupt, "put"));
        }
        let nothing = sums(&body, UploadChecksum::Off);
        assert_eq!(confirm("put", &key, &nothing, told(Some("AAAAAAAAAAA="))).unwrap(), None);
    }

    #[test]
    fn tags_are_compared_where_they_are_sums() {
        let key = Key::new("k").unwrap();
        let sent = sums(&Payload::from("hello world"), UploadChecksum::Md5);
        let confirmed = |tag| confirm("put", &key, &sent, Told { crc64: None, tag: Some(tag) }).is_ok();
        assert!(confirmed("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
        assert!(confirmed("\"5EB63BBBE01EEED093CB22BB8F5ACDC3\""));
        assert!(confirmed("\"5eb63bbbe01eeed093cb22bb8f5acdc3-1\"") && confirmed("\"opaque\""));
        assert!(!confirmed("\"5eb63bbbe01eeed093cb22bb8f5acdc4\""));
        assert!(is_md5_of("\"5eb63bbbe01eeed093cb22bb8f5acdc3\"", &sent) && !is_md5_of("\"x\"", &sent));
    }
}
