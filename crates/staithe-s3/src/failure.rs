//! From the SDK's error to the port's: reads the evidence, asks the table, keeps the causes.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use staithe_store::{ErrorKind, Key, StoreError};

use crate::classify::{Condition, Meaning, Shape, classify};
use crate::document::{self, Unread};

/// What was asked, for the error that may come of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The verb of the port.
    pub(crate) operation: &'static str,
    /// The object, where there is one.
    pub(crate) key: Option<&'a Key>,
    /// On what the request was conditional.
    pub(crate) condition: Condition,
}

impl Subject<'_> {
    /// Whether it asks for what has a body, in which an error has its code.
    fn is_read(&self) -> bool {
        matches!(self.operation, "get" | "list" | "identity")
    }
}

/// A failed request: the error for the caller, and what only this crate needs to know of it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the caller.
    pub(crate) error: StoreError,
    /// What it meant before the condition was applied.
    pub(crate) meaning: Meaning,
    /// HTTP status; 0 where no answer came.
    pub(crate) status: u16,
    /// The error code of the answer's document (answers to HEAD have none).
    pub(crate) code: Option<String>,
    /// The region that the server named for the bucket.
    pub(crate) region: Option<String>,
    /// The answer itself, where it succeeded and could not be read.
    pub(crate) unread: Option<Box<Unread>>,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<StoreError> for Failure {
    /// An answer that came, and was found wanting.
    fn from(error: StoreError) -> Self {
        Self {
            meaning: Meaning::Kind(error.kind()),
            error,
            status: 200,
            code: None,
            region: None,
            unread: None,
        }
    }
}

impl Failure {
    /// A failure without an answer.
    pub(crate) fn local(subject: Subject<'_>, shape: &Shape<'_>, message: impl Into<String>) -> Self {
        let meaning = classify(shape);
        let error = describe(subject, meaning.kind(subject.condition), message.into());
        Self { error, meaning, status: 0, code: None, region: None, unread: None }
    }

    /// The failure that an SDK error is.
    pub(crate) fn from_sdk<E>(subject: Subject<'_>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let raw = error.raw_response();
        let status = raw.map_or(0, |r| r.status().as_u16());
        let header = |name: &str| raw.and_then(|r| r.headers().get(name)).map(str::to_owned);
        let code = error.as_service_error().and_then(|e| e.meta().code()).map(str::to_owned);
        let shape = shape_of(&error, status, code.as_deref());
        let meaning = match classify(&shape) {
            _ if header("x-amz-delete-marker").as_deref() == Some("true") => {
                Meaning::Kind(ErrorKind::NotFound)
            }
            // An S3 server says what is missing: this was something in front of it.
            Meaning::Kind(ErrorKind::NotFound) if code.is_none() && subject.is_read() => {
                Meaning::Kind(ErrorKind::Unavailable)
            }
            meaning => meaning,
        };
        let kind = meaning.kind(subject.condition);
        let message = sentence(kind, &shape);
        let request_id = header("x-amz-request-id");
        let retry_after = header("retry-after").and_then(|text| text.trim().parse().ok());
        let region = header("x-amz-bucket-region").or_else(|| raw.and_then(document::region));
        let unread = raw.filter(|_| code.is_none()).and_then(Unread::of).map(Box::new);

        let mut told = describe(subject, kind, message).with_source(error);
        if let Some(id) = request_id {
            told = told.with_request_id(id);
        }
        if let Some(seconds) = retry_after {
            told = told.with_retry_after(Duration::from_secs(seconds));
        }
        Self { error: told, meaning, status, code, region, unread }
    }

    /// Whether this is an answer that gives no reason, as those to HEAD: refused, or nothing found.
    pub(crate) fn is_mute(&self) -> bool {
        // The SDK gives an answer without a document the code that its status stands for.
        let is_bare = self.code.as_deref().is_none_or(|code| code == "NotFound");
        self.is_refusal() || (matches!(self.status, 404 | 410) && is_bare)
    }

    /// Whether this is a refusal without a reason: a HEAD that was answered 400, 401 or 403.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status, 400 | 401 | 403) && self.code.is_none()
    }
}

/// Names the object in an error, where there is one.
fn describe(subject: Subject<'_>, kind: ErrorKind, message: String) -> StoreError {
    let error = StoreError::new(kind, subject.operation, message);
    match subject.key {
        Some(key) => error.with_key(key),
        None => error,
    }
}

fn shape_of<'a, E>(error: &SdkError<E, HttpResponse>, status: u16, code: Option<&'a str>) -> Shape<'a>
where
    E: StdError + Send + Sync + 'static,
{
    if let Some(cause) = find::<CredentialsError>(error) {
        return match cause {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                Shape::NoCredentials
            }
            CredentialsError::ProviderTimedOut(_) => Shape::Timeout,
            _ => Shape::CredentialSource,
        };
    }
    match error {
        SdkError::ConstructionFailure(_) => Shape::Construction,
        SdkError::TimeoutError(_) => Shape::Timeout,
        SdkError::DispatchFailure(cause) if cause.is_timeout() => Shape::Timeout,
        SdkError::DispatchFailure(cause) if cause.is_user() => Shape::Construction,
        SdkError::ResponseError(_) => Shape::Unreadable { status },
        SdkError::ServiceError(_) => Shape::Answer { status, code },
        // A broken connection, and whatever a later SDK adds.
        _ => Shape::Connection,
    }
}

/// The first cause of a given type. O(length of the chain).
pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn sentence(kind: ErrorKind, shape: &Shape<'_>) -> String {
    let what = match shape {
        Shape::NoCredentials => {
            return "no usable credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                    name a profile, or send requests unsigned"
                .to_owned();
        }
        Shape::CredentialSource => {
            return "the source of the credentials failed; see the causes".to_owned();
        }
        Shape::Construction => return "the request could not be built; see the causes".to_owned(),
        Shape::Timeout => return "no answer in the time allowed".to_owned(),
        Shape::Connection => return "the server cannot be reached, or the connection broke".to_owned(),
        Shape::Unreadable { .. } => "the answer cannot be read",
        Shape::Answer { .. } => meaning_in_words(kind),
    };
    match shape {
        Shape::Answer { status, code: Some(code) } => format!("{what} (HTTP {status}, {code})"),
        Shape::Answer { status, .. } | Shape::Unreadable { status } => format!("{what} (HTTP {status})"),
        _ => what.to_owned(),
    }
}

/// An error kind in words, for a message.
pub(crate) fn meaning_in_words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "there is no such object, version or upload",
        ErrorKind::VolumeGone => "there is no such bucket",
        ErrorKind::VersionMismatch => "the object is not, or no longer, the version named",
        ErrorKind::AlreadyExists => "the object exists already",
        ErrorKind::Forbidden => "the credentials do not allow this",
        ErrorKind::CredentialsExpired => "the credentials have expired; renew them",
        ErrorKind::CredentialsRefused => "the server does not accept these credentials; check them",
        ErrorKind::Throttled => "the server asks for fewer requests",
        ErrorKind::Unavailable => "the server cannot do this now",
        ErrorKind::Timeout => "the server gave up waiting for the request",
        ErrorKind::Corrupt => "the bytes arrived damaged",
        ErrorKind::Unsupported => "this server cannot do that",
        _ => "the server takes the request to be wrong",
    }
}
