//! Questions about the bucket itself.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::BucketVersioningStatus;
use staithe_store::{ErrorKind, Key, StoreError, VolumeInfo};

use crate::classify::Meaning;
use crate::failure::Failure;
use crate::link::{Call, Link};
use crate::volume;

impl Link {
    /// Whether the bucket is there and may be used, asked through `client`, again and again.
    ///
    /// One HEAD; where that says only by its status that it is refused or finds nothing, one listing, whose answer has a
    /// code: whatever stands in front of a store may answer 404, too.
    pub(crate) async fn ask_bucket(&self, client: &Client) -> Result<VolumeInfo, Failure> {
        self.ask_bucket_as(Call::new("probe", None, self.patience.first_byte), client).await
    }

    /// The same, once, on a connection of its own.
    pub(crate) async fn probe_bucket(&self) -> Result<VolumeInfo, Failure> {
        self.ask_bucket_as(Call::new("probe", None, self.patience.first_byte).once(), &self.fresh).await
    }

    /// When the bucket was made, where that says anything: of Amazon's, it changes with a bucket's settings. `None` if it
    /// is not told, or not to us.
    pub(crate) async fn made(&self) -> Result<Option<DateTime>, Failure> {
        if volume::is_of_amazon(&self.volume) {
            return Ok(None);
        }
        let call = Call::new("identity", None, self.patience.first_byte).once();

        let asked = self.call(call, || self.fresh.list_buckets().prefix(&self.bucket).send()).await;
        let asked = match asked {
            Ok(answer) => answer,
            Err(failure) if is_untold(failure.error.kind()) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let ours = asked.buckets().iter().find(|bucket| bucket.name() == Some(&self.bucket));
        Ok(ours.and_then(|bucket| bucket.creation_date().copied()))
    }

    async fn ask_bucket_as(&self, call: Call<'_>, client: &Client) -> Result<VolumeInfo, Failure> {
        let answer = self.call(call, || client.head_bucket().bucket(&self.bucket).send()).await;
        match answer {
            Ok(answer) => Ok(VolumeInfo { created: None, region: answer.bucket_region }),
            Err(failure) if failure.is_mute() => self.ask_by_listing(call, client, failure).await,
            Err(failure) => Err(failure),
        }
    }

    async fn ask_by_listing(
        &self,
        call: Call<'_>,
        client: &Client,
        mute: Failure,
    ) -> Result<VolumeInfo, Failure> {
        let listed = self.call(call, || client.list_objects_v2().bucket(&self.bucket).max_keys(1).send());
        match listed.await {
            Ok(_) => Ok(VolumeInfo { created: None, region: mute.region }),
            Err(told) if told.error.kind() == ErrorKind::VolumeGone => Err(self.gone(told)),
            Err(told) if told.error.kind() == ErrorKind::NotFound => Err(unsaid(told)),
            Err(told) => Err(Failure { region: told.region.clone().or(mute.region), ..told }),
        }
    }

    fn gone(&self, failure: Failure) -> Failure {
        let message = format!("there is no bucket {:?} at this endpoint", self.bucket);
        let error = StoreError::new(ErrorKind::VolumeGone, "probe", message);
        Failure { error: in_place_of(failure.error.clone(), error), ..failure }
    }

    /// The error that a refusal without a reason (of a HEAD) stands for: the bucket's verdict where it has
    /// one, else the refusal as it is.
    pub(crate) async fn reason(&self, mute: Failure, key: Option<&Key>) -> StoreError {
        let call = Call::new(mute.error.operation(), key, self.patience.first_byte);
        let listed =
            self.call(call, || self.client.list_objects_v2().bucket(&self.bucket).max_keys(1).send());
        match listed.await {
            // Without an answer it is not known what it stands for: that is worth another try.
            Err(told) if is_verdict(told.error.kind()) || told.error.is_retryable() => told.error,
            _ => mute.error,
        }
    }

    /// Whether the bucket keeps versions now. A server without the notion keeps none.
    pub(crate) async fn keeps_versions(&self) -> Result<bool, Failure> {
        let call = Call::new("connect", None, self.patience.first_byte);
        let asked = self.call(call, || self.client.get_bucket_versioning().bucket(&self.bucket).send());
        match asked.await {
            Ok(answer) => Ok(answer.status() == Some(&BucketVersioningStatus::Enabled)),
            Err(Failure { unread: Some(answer), .. }) => {
                Ok(answer.element("Status").as_deref() == Some("Enabled"))
            }
            Err(failure) => match failure.error.kind() {
                ErrorKind::Forbidden | ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Invalid => {
                    tracing::warn!(error = %failure.error, "taking the bucket to keep no versions");
                    Ok(false)
                }
                _ => Err(failure),
            },
        }
    }
}

/// What is told instead of an error: it has what that has, and is caused by it.
pub(crate) fn in_place_of(cause: StoreError, mut told: StoreError) -> StoreError {
    if let Some(id) = cause.request_id() {
        told = told.with_request_id(id);
    }
    if let Some(wait) = cause.retry_after() {
        told = told.with_retry_after(wait);
    }
    told.with_source(cause)
}

/// Nothing is found, and no code says that it is the bucket: something else than the store may have answered.
fn unsaid(failure: Failure) -> Failure {
    let message = "nothing is found there (HTTP 404), and the answer does not say that it is the bucket \
                   which is missing; is this the endpoint of an S3 server?";
    let error = StoreError::new(ErrorKind::Unavailable, failure.error.operation(), message);
    Failure {
        error: in_place_of(failure.error, error),
        meaning: Meaning::Kind(ErrorKind::Unavailable),
        ..failure
    }
}

/// Whether who asks which buckets there are is not told.
fn is_untold(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(kind, K::Forbidden | K::Unsupported | K::Invalid | K::NotFound | K::Corrupt)
}

/// Whether it is about the bucket, or whoever asks, whatever was asked for.
pub(crate) fn is_verdict(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(kind, K::VolumeGone | K::CredentialsRefused | K::CredentialsExpired)
}
