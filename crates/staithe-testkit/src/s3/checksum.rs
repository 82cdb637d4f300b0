//! Checksums of bodies: what the client claims is computed again and compared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::TryStreamExt;
use s3s::TrailingHeaders;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, ChecksumAlgorithm, ChecksumType, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use staithe_store::Payload;

use crate::lie::Lie;

/// What a request says of its body.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) md5: Option<String>,
    pub(super) checksum: Checksum,
    pub(super) algorithm: Option<ChecksumAlgorithm>,
    pub(super) trailers: Option<TrailingHeaders>,
    /// The names that the `x-amz-trailer` header announces.
    pub(super) announced: Option<String>,
    pub(super) length: Option<i64>,
}

/// A body that arrived whole and is what it claims to be.
pub(super) struct Received {
    pub(super) payload: Payload,
    /// What was computed: at least every algorithm that was claimed.
    pub(super) checksum: Checksum,
}

impl Received {
    /// What the server makes of it.
    pub(super) fn stored(self, lie: Lie) -> Self {
        if !lie.is_of_bytes() {
            return self;
        }
        let payload = lie.stored(&self.payload);
        Self { checksum: again(&self.checksum, &payload), payload }
    }
}

/// The five fields of a checksum, with the names that S3 gives them.
fn fields(sum: &Checksum) -> [(&'static str, &Option<String>); 5] {
    [
        (ChecksumAlgorithm::CRC32, &sum.checksum_crc32),
        (ChecksumAlgorithm::CRC32C, &sum.checksum_crc32c),
        (ChecksumAlgorithm::CRC64NVME, &sum.checksum_crc64nvme),
        (ChecksumAlgorithm::SHA1, &sum.checksum_sha1),
        (ChecksumAlgorithm::SHA256, &sum.checksum_sha256),
    ]
}

/// The one of the fields that this algorithm fills.
pub(super) fn field<'c>(sum: &'c Checksum, algorithm: &str) -> Option<&'c str> {
    fields(sum).into_iter().find(|(name, _)| *name == algorithm).and_then(|(_, value)| value.as_deref())
}

/// A checksum with one field set.
pub(super) fn single(algorithm: &str, value: String) -> Checksum {
    let mut sum = Checksum::default();
    let field = match algorithm {
        ChecksumAlgorithm::CRC32 => &mut sum.checksum_crc32,
        ChecksumAlgorithm::CRC32C => &mut sum.checksum_crc32c,
        ChecksumAlgorithm::CRC64NVME => &mut sum.checksum_crc64nvme,
        ChecksumAlgorithm::SHA1 => &mut sum.checksum_sha1,
        _ => &mut sum.checksum_sha256,
    };
    *field = Some(value);
    sum
}

/// A hasher for one algorithm; for an unknown one it computes nothing.
pub(super) fn hasher(algorithm: &str) -> ChecksumHasher {
    let mut hasher = ChecksumHasher::default();
    enable(&mut hasher, algorithm);
    hasher
}

fn enable(hasher: &mut ChecksumHasher, algorithm: &str) {
    match algorithm {
        ChecksumAlgorithm::CRC32 => hasher.crc32 = Some(Crc32::new()),
        ChecksumAlgorithm::CRC32C => hasher.crc32c = Some(Crc32c::new()),
        ChecksumAlgorithm::CRC64NVME => hasher.crc64nvme = Some(Crc64Nvme::new()),
        ChecksumAlgorithm::SHA1 => hasher.sha1 = Some(Sha1::new()),
        ChecksumAlgorithm::SHA256 => hasher.sha256 = Some(Sha256::new()),
        _ => {}
    }
}

/// The same checksums of other bytes.
pub(super) fn again(sum: &Checksum, payload: &Payload) -> Checksum {
    let mut hasher = ChecksumHasher::default();
    for (name, _) in fields(sum).into_iter().filter(|(_, value)| value.is_some()) {
        enable(&mut hasher, name);
    }
    payload.chunks().iter().for_each(|chunk| hasher.update(chunk));
    hasher.finalize()
}

/// The CRC64NVME of a whole whose parts have these lengths and checksums, if all of them have one.
pub(super) fn joined<'c>(mut parts: impl Iterator<Item = (u64, &'c Checksum)>) -> Option<String> {
    let read = |sum: &Checksum| {
        let bytes = BASE64.decode(sum.checksum_crc64nvme.as_ref()?).ok()?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let (_, first) = parts.next()?;
    let whole = parts.try_fold(read(first)?, |sum, (size, next)| {
        Some(crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, sum, read(next)?, size))
    })?;
    Some(BASE64.encode(whole.to_be_bytes()))
}

/// The checksum of checksums that S3 gives an object made of parts: `<base64>-<parts>`.
pub(super) fn composite<'c>(
    algorithm: &str,
    parts: impl Iterator<Item = Option<&'c str>>,
) -> Option<Checksum> {
    let mut hasher = hasher(algorithm);
    let mut count = 0_usize;
    for part in parts {
        hasher.update(&BASE64.decode(part?).ok()?);
        count += 1;
    }
    let sum = hasher.finalize();
    let mut sum = single(algorithm, format!("{}-{count}", field(&sum, algorithm)?));
    sum.checksum_type = Some(ChecksumType::from_static(ChecksumType::COMPOSITE));
    Some(sum)
}

impl Claims {
    fn hasher(&self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        for (name, value) in fields(&self.checksum) {
            let trailer = header_name(name);
            let announced = self.announced.as_deref().is_some_and(|names| {
                names.split(',').any(|announced| announced.trim().eq_ignore_ascii_case(&trailer))
            });
            let asked = self.algorithm.as_ref().is_some_and(|a| a.as_str() == name);
            if value.is_some() || announced || asked {
                enable(&mut hasher, name);
            }
        }
        hasher
    }

    /// Takes the body in without copying it, and compares.
    pub(super) async fn receive(self, body: Option<StreamingBlob>) -> S3Result<Received> {
        let mut hasher = self.hasher();
        let mut md5 = self.md5.as_ref().map(|_| Md5::new());
        let mut chunks: Vec<Bytes> = Vec::new();
        if let Some(mut body) = body {
            while let Some(chunk) = body.try_next().await.map_err(broken_body)? {
                hasher.update(&chunk);
                if let Some(md5) = &mut md5 {
                    md5.update(&chunk);
                }
                chunks.push(chunk);
            }
        }
        let payload = Payload::new(chunks);
        if self.length.is_some_and(|length| length as u64 != payload.len()) {
            return Err(s3_error!(IncompleteBody, "The body is not as long as its Content-Length says"));
        }
        if let (Some(claimed), Some(md5)) = (&self.md5, md5) {
            check_md5(claimed, md5.finalize().as_ref())?;
        }
        let checksum = hasher.finalize();
        self.compare(&checksum)?;
        Ok(Received { payload, checksum })
    }

    fn compare(&self, computed: &Checksum) -> S3Result<()> {
        for (name, value) in fields(computed) {
            let trailer = self.trailers.as_ref().and_then(|trailers| {
                trailers.read(|map| Some(map.get(header_name(name))?.to_str().ok()?.to_owned()))?
            });
            let claims = [field(&self.checksum, name), trailer.as_deref()];
            if claims.into_iter().flatten().any(|claimed| Some(claimed) != value.as_deref()) {
                return Err(s3_error!(
                    BadDigest,
                    "The {name} you specified did not match the calculated checksum."
                ));
            }
        }
        Ok(())
    }
}

fn header_name(algorithm: &str) -> String {
    format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase())
}

fn check_md5(claimed: &str, computed: &[u8]) -> S3Result<()> {
    match BASE64.decode(claimed) {
        Ok(claimed) if claimed == computed => Ok(()),
        Ok(claimed) if claimed.len() == computed.len() => {
            Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."))
        }
        _ => Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid.")),
    }
}

fn broken_body(error: s3s::StdError) -> S3Error {
    match error.downcast::<S3Error>() {
        Ok(error) => *error,
        Err(error) => S3Error::with_source(S3ErrorCode::IncompleteBody, error),
    }
}
