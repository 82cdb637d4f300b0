//! `ListObjects` and `ListObjectsV2`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, ObjectStorageClass,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use staithe_store::{ListPage, ListRequest, ObjectStore, ObjectSummary, PageToken};

use super::Front;
use super::translate::{object_error, tag_out, whole_seconds};

/// What S3 leaves as it is in a url-encoded listing.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');

/// How the names of a listing are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Plain,
    Url,
}

impl Names {
    pub(super) fn of(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some(EncodingType::URL) => Ok(Self::Url),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn write(self, text: impl AsRef<str>) -> String {
        match self {
            Self::Plain => text.as_ref().to_owned(),
            Self::Url => utf8_percent_encode(text.as_ref(), PLAIN).to_string(),
        }
    }

    pub(super) fn encoding(self) -> Option<EncodingType> {
        (self == Self::Url).then(|| EncodingType::from_static(EncodingType::URL))
    }
}

/// The most entries of a page: what is asked for, up to 1,000.
pub(super) fn page_size(asked: Option<i32>) -> S3Result<u16> {
    match asked.unwrap_or(1000) {
        n @ 0..=1000 => Ok(n as u16),
        n if n > 1000 => Ok(1000),
        _ => Err(s3_error!(InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647")),
    }
}

fn delimiter(text: Option<&str>) -> S3Result<Option<char>> {
    let mut chars = text.unwrap_or("").chars();
    let first = chars.next();
    if chars.next().is_some() {
        return Err(s3_error!(NotImplemented, "A delimiter is one character here"));
    }
    Ok(first)
}

/// A page in the words of the port; a page of no entries is not asked for at all.
async fn page(front: &Front, bucket: &str, request: ListRequest) -> S3Result<ListPage> {
    let bucket = front.buckets.get(bucket)?;
    if request.max_keys == Some(0) {
        return Ok(ListPage::default());
    }
    bucket.store.list(request).await.map_err(object_error)
}

fn object(summary: &ObjectSummary, names: Names) -> Object {
    Object {
        key: Some(names.write(&summary.key)),
        size: Some(summary.size as i64),
        e_tag: Some(tag_out(&summary.etag)),
        last_modified: Some(whole_seconds(summary.last_modified)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Object::default()
    }
}

fn objects(page: &ListPage, names: Names) -> Vec<Object> {
    page.objects.iter().map(|summary| object(summary, names)).collect()
}

fn prefixes(page: &ListPage, names: Names) -> Vec<CommonPrefix> {
    page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(names.write(prefix)) }).collect()
}

pub(super) async fn second(front: &Front, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let names = Names::of(input.encoding_type.as_ref())?;
    let max_keys = page_size(input.max_keys)?;
    let token = input.continuation_token.as_deref().map(token_in).transpose()?;
    let separator = delimiter(input.delimiter.as_deref())?;
    let request = ListRequest {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: separator,
        start_after: input.start_after.clone().filter(|_| token.is_none()),
        max_keys: Some(max_keys),
        token,
    };
    let page = page(front, &input.bucket, request).await?;
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.write(input.prefix.unwrap_or_default())),
        max_keys: Some(i32::from(max_keys)),
        key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_ref().map(|token| BASE64.encode(token.as_str())),
        contents: Some(objects(&page, names)),
        common_prefixes: Some(prefixes(&page, names)),
        delimiter: input.delimiter.map(|text| names.write(text)),
        encoding_type: names.encoding(),
        start_after: input.start_after.map(|text| names.write(text)),
        ..ListObjectsV2Output::default()
    })
}

/// A token travels as base64: the port's may hold any character of a key.
fn token_in(text: &str) -> S3Result<PageToken> {
    let wrong = || {
        S3Error::with_message(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect")
    };
    let bytes = BASE64.decode(text).map_err(|_| wrong())?;
    Ok(PageToken::new(String::from_utf8(bytes).map_err(|_| wrong())?))
}

pub(super) async fn first(front: &Front, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let names = Names::of(input.encoding_type.as_ref())?;
    let max_keys = page_size(input.max_keys)?;
    let separator = delimiter(input.delimiter.as_deref())?;
    let marker = input.marker.clone().filter(|marker| !marker.is_empty());
    let request = ListRequest {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: separator,
        start_after: marker.map(|marker| after(marker, separator)),
        max_keys: Some(max_keys),
        token: None,
    };
    let page = page(front, &input.bucket, request).await?;
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.write(input.prefix.unwrap_or_default())),
        marker: Some(names.write(input.marker.unwrap_or_default())),
        max_keys: Some(i32::from(max_keys)),
        is_truncated: Some(page.next.is_some()),
        next_marker: last(&page).filter(|_| page.next.is_some()).map(|text| names.write(text)),
        contents: Some(objects(&page, names)),
        common_prefixes: Some(prefixes(&page, names)),
        delimiter: input.delimiter.map(|text| names.write(text)),
        encoding_type: names.encoding(),
        ..ListObjectsOutput::default()
    })
}

/// A marker that is a rolled-up prefix stands for all that is below it.
fn after(marker: String, delimiter: Option<char>) -> String {
    match delimiter {
        Some(separator) if marker.ends_with(separator) => format!("{marker}{}", char::MAX),
        _ => marker,
    }
}

/// The last name of a page, in byte order.
fn last(page: &ListPage) -> Option<&str> {
    let object = page.objects.last().map(|summary| summary.key.as_str());
    object.max(page.prefixes.last().map(String::as_str))
}
