use std::fmt;

use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;

/// An S3 operation, as told from a request's method, path, query and headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `GET /`
    ListBuckets,
    /// `PUT /bucket`
    CreateBucket,
    /// `DELETE /bucket`
    DeleteBucket,
    /// `HEAD /bucket`
    HeadBucket,
    /// `GET /bucket?location`
    GetBucketLocation,
    /// `GET /bucket?versioning`
    GetBucketVersioning,
    /// `PUT /bucket?versioning`
    PutBucketVersioning,
    /// `GET /bucket`
    ListObjects,
    /// `GET /bucket?list-type=2`
    ListObjectsV2,
    /// `GET /bucket?versions`
    ListObjectVersions,
    /// `GET /bucket?uploads`
    ListMultipartUploads,
    /// `POST /bucket?delete`
    DeleteObjects,
    /// `HEAD /bucket/key`
    HeadObject,
    /// `GET /bucket/key`
    GetObject,
    /// `PUT /bucket/key`
    PutObject,
    /// `PUT /bucket/key` with `x-amz-copy-source`
    CopyObject,
    /// `DELETE /bucket/key`
    DeleteObject,
    /// `POST /bucket/key?uploads`
    CreateMultipartUpload,
    /// `PUT /bucket/key?uploadId`
    UploadPart,
    /// `PUT /bucket/key?uploadId` with `x-amz-copy-source`
    UploadPartCopy,
    /// `POST /bucket/key?uploadId`
    CompleteMultipartUpload,
    /// `DELETE /bucket/key?uploadId`
    AbortMultipartUpload,
    /// `GET /bucket/key?uploadId`
    ListParts,
    /// Anything else.
    Other,
}

impl Operation {
    /// Every operation, in the order of the enumeration.
    pub const ALL: [Self; 24] = [
        Self::ListBuckets,
        Self::CreateBucket,
        Self::DeleteBucket,
        Self::HeadBucket,
        Self::GetBucketLocation,
        Self::GetBucketVersioning,
        Self::PutBucketVersioning,
        Self::ListObjects,
        Self::ListObjectsV2,
        Self::ListObjectVersions,
        Self::ListMultipartUploads,
        Self::DeleteObjects,
        Self::HeadObject,
        Self::GetObject,
        Self::PutObject,
        Self::CopyObject,
        Self::DeleteObject,
        Self::CreateMultipartUpload,
        Self::UploadPart,
        Self::UploadPartCopy,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::ListParts,
        Self::Other,
    ];

    /// Whether the operation, when it succeeds, changes what a later one sees.
    pub fn is_mutation(self) -> bool {
        matches!(
            self,
            Self::CreateBucket
                | Self::DeleteBucket
                | Self::PutBucketVersioning
                | Self::DeleteObjects
                | Self::PutObject
                | Self::CopyObject
                | Self::DeleteObject
                | Self::CreateMultipartUpload
                | Self::UploadPart
                | Self::UploadPartCopy
                | Self::CompleteMultipartUpload
                | Self::AbortMultipartUpload
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) operation: Operation,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
}

impl Target {
    /// Reads a path-style request.
    pub(crate) fn of(request: &Parts) -> Self {
        let path = percent_decode_str(request.uri.path()).decode_utf8_lossy();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let has = |name: &str| query_has(request.uri.query().unwrap_or(""), name);
        let copies = request.headers.contains_key("x-amz-copy-source");
        let operation = match (bucket.is_empty(), key.is_empty()) {
            (true, _) if request.method == Method::GET => Operation::ListBuckets,
            (true, _) => Operation::Other,
            (false, true) => on_bucket(&request.method, has),
            (false, false) => on_object(&request.method, has, copies),
        };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self { operation, bucket: some(bucket), key: some(key) }
    }
}

fn query_has(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

fn on_bucket(method: &Method, has: impl Fn(&str) -> bool) -> Operation {
    match *method {
        Method::HEAD => Operation::HeadBucket,
        Method::DELETE => Operation::DeleteBucket,
        Method::PUT if has("versioning") => Operation::PutBucketVersioning,
        Method::PUT => Operation::CreateBucket,
        Method::POST if has("delete") => Operation::DeleteObjects,
        Method::GET if has("location") => Operation::GetBucketLocation,
        Method::GET if has("versioning") => Operation::GetBucketVersioning,
        Method::GET if has("versions") => Operation::ListObjectVersions,
        Method::GET if has("uploads") => Operation::ListMultipartUploads,
        Method::GET if has("list-type") => Operation::ListObjectsV2,
        Method::GET => Operation::ListObjects,
        _ => Operation::Other,
    }
}

fn on_object(method: &Method, has: impl Fn(&str) -> bool, copies: bool) -> Operation {
    match (method.clone(), has("uploadId"), copies) {
        (Method::HEAD, ..) => Operation::HeadObject,
        (Method::GET, true, _) => Operation::ListParts,
        (Method::GET, false, _) => Operation::GetObject,
        (Method::DELETE, true, _) => Operation::AbortMultipartUpload,
        (Method::DELETE, false, _) => Operation::DeleteObject,
        (Method::PUT, true, true) => Operation::UploadPartCopy,
        (Method::PUT, true, false) => Operation::UploadPart,
        (Method::PUT, false, true) => Operation::CopyObject,
        (Method::PUT, false, false) => Operation::PutObject,
        (Method::POST, true, _) => Operation::CompleteMultipartUpload,
        (Method::POST, false, _) if has("uploads") => Operation::CreateMultipartUpload,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: &str, uri: &str, copies: bool) -> Target {
        let mut request = http::Request::builder().method(method).uri(uri);
        if copies {
            request = request.header("x-amz-copy-source", "b/k");
        }
        Target::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn every_operation_is_told_from_its_request() {
        use Operation::*;
        let table = [
            ("GET", "/", false, ListBuckets),
            ("GET", "/b?list-type=2&prefix=x", false, ListObjectsV2),
            ("GET", "/b/", false, ListObjects),
            ("GET", "/b?versions", false, ListObjectVersions),
            ("GET", "/b?uploads=", false, ListMultipartUploads),
            ("HEAD", "/b", false, HeadBucket),
            ("POST", "/b?delete", false, DeleteObjects),
            ("GET", "/b/k?x-id=GetObject", false, GetObject),
            ("PUT", "/b/k?partNumber=1&uploadId=u", false, UploadPart),
            ("PUT", "/b/k?partNumber=1&uploadId=u", true, UploadPartCopy),
            ("PUT", "/b/k", true, CopyObject),
            ("POST", "/b/k?uploads", false, CreateMultipartUpload),
            ("POST", "/b/k?uploadId=u", false, CompleteMultipartUpload),
            ("DELETE", "/b/k?uploadId=u", false, AbortMultipartUpload),
            ("DELETE", "/b/k?versionId=v", false, DeleteObject),
        ];
        for (method, uri, copies, operation) in table {
            assert_eq!(target(method, uri, copies).operation, operation, "{method} {uri}");
        }
    }

    #[test]
    fn keys_are_decoded() {
        let target = target("GET", "/b/a%20b//c%C3%A9", false);
        assert_eq!(target.bucket.as_deref(), Some("b"));
        assert_eq!(target.key.as_deref(), Some("a b//cé"));
    }

    #[test]
    fn the_list_of_all_is_in_order() {
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place);
        }
    }
}
