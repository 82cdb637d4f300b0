//! Operations on buckets.

use s3s::dto::{
    Bucket as WireBucket, BucketLocationConstraint, BucketVersioningStatus, CreateBucketInput,
    CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput, GetBucketLocationInput,
    GetBucketLocationOutput, GetBucketVersioningInput, GetBucketVersioningOutput, HeadBucketInput,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput, PutBucketVersioningInput,
    PutBucketVersioningOutput,
};
use s3s::{S3Result, s3_error};
use staithe_store::{ListRequest, ObjectStore};

use super::Front;
use super::bucket::Versioning;
use super::translate::{object_error, whole_seconds};
use crate::server::REGION;

pub(super) fn create(front: &Front, input: &CreateBucketInput) -> S3Result<CreateBucketOutput> {
    if !front.buckets.create(&input.bucket, Versioning::Off) {
        return Err(s3_error!(
            BucketAlreadyOwnedByYou,
            "Your previous request to create the bucket succeeded"
        ));
    }
    Ok(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) })
}

pub(super) async fn delete(front: &Front, input: &DeleteBucketInput) -> S3Result<DeleteBucketOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let live = ListRequest { max_keys: Some(1), ..ListRequest::default() };
    let mut used = !bucket.store.list(live).await.map_err(object_error)?.objects.is_empty();
    if bucket.versioning == Versioning::On {
        used |= !bucket.store.list_versions("", None).await.map_err(object_error)?.entries.is_empty();
    }
    if used {
        return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
    }
    front.buckets.delete(&input.bucket);
    Ok(DeleteBucketOutput {})
}

/// Finds the bucket, and makes sure that its store still has one.
pub(super) async fn head(front: &Front, input: &HeadBucketInput) -> S3Result<HeadBucketOutput> {
    front.buckets.get(&input.bucket)?.store.probe().await.map_err(object_error)?;
    Ok(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..HeadBucketOutput::default() })
}

pub(super) fn list(front: &Front, input: &ListBucketsInput) -> ListBucketsOutput {
    let prefix = input.prefix.clone().unwrap_or_default();
    let all = front.buckets.all().into_iter().filter(|(name, _)| name.starts_with(&prefix));
    let buckets = all.map(|(name, bucket)| WireBucket {
        name: Some(name),
        creation_date: Some(whole_seconds(bucket.created)),
        bucket_region: None,
    });
    ListBucketsOutput { buckets: Some(buckets.collect()), ..ListBucketsOutput::default() }
}

pub(super) fn location(front: &Front, input: &GetBucketLocationInput) -> S3Result<GetBucketLocationOutput> {
    front.buckets.get(&input.bucket)?;
    // The first region is told as none at all.
    Ok(GetBucketLocationOutput { location_constraint: None::<BucketLocationConstraint> })
}

pub(super) fn versioning(
    front: &Front,
    input: &GetBucketVersioningInput,
) -> S3Result<GetBucketVersioningOutput> {
    let status = match front.buckets.get(&input.bucket)?.versioning {
        Versioning::Off => None,
        Versioning::On => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
    };
    Ok(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() })
}

/// Versions can be switched on while the bucket is empty, and never off.
pub(super) fn set_versioning(
    front: &Front,
    input: &PutBucketVersioningInput,
) -> S3Result<PutBucketVersioningOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let status = input.versioning_configuration.status.as_ref().map(BucketVersioningStatus::as_str);
    match (status, bucket.versioning) {
        (Some(BucketVersioningStatus::ENABLED), Versioning::On)
        | (Some(BucketVersioningStatus::SUSPENDED), Versioning::Off) => {}
        (Some(BucketVersioningStatus::ENABLED), Versioning::Off) if bucket.store.object_count() == 0 => {
            front.buckets.replace(&input.bucket, Versioning::On);
        }
        _ => {
            return Err(s3_error!(NotImplemented, "Versions can be switched on while the bucket is empty"));
        }
    }
    Ok(PutBucketVersioningOutput {})
}
