//! The table from what came back to what it means: by status, code and shape, never by text.

use staithe_store::ErrorKind;

/// How a request ended, where it did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    /// Never sent: the request could not be built.
    Construction,
    /// No credentials were found.
    NoCredentials,
    /// The source of the credentials failed; another try may do.
    CredentialSource,
    /// No answer, or no connection, in the time allowed.
    Timeout,
    /// The connection could not be made, or broke.
    Connection,
    /// An answer whose document cannot be read.
    Unreadable {
        /// HTTP status.
        status: u16,
    },
    /// An error answer.
    Answer {
        /// HTTP status; 0 where there is none, as in the entries of a batch.
        status: u16,
        /// The error code of the document, where there is one.
        code: Option<&'a str>,
    },
}

/// What an ending means, before the condition of the request is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// This kind of error.
    Kind(ErrorKind),
    /// A condition of the request did not hold.
    ConditionFailed,
    /// There is no such upload, whatever the condition on the object.
    NoUpload,
    /// Another write of the same object was in the way; the condition was not decided.
    ConditionConflict,
}

/// On what a request was conditional: what a failed condition means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    Unconditional,
    /// That there is no such object.
    Absent,
    /// That an object has a tag, to be read.
    Matches,
    /// That an object has a tag, to be replaced or removed: it may also be missing.
    Replaces,
}

impl Meaning {
    /// The kind of error, for a request with this condition.
    pub(crate) fn kind(self, condition: Condition) -> ErrorKind {
        match (self, condition) {
            (Self::Kind(ErrorKind::NotFound), Condition::Replaces) => ErrorKind::VersionMismatch,
            (Self::Kind(kind), _) => kind,
            (Self::NoUpload, _) => ErrorKind::NotFound,
            (_, Condition::Absent) => ErrorKind::AlreadyExists,
            (Self::ConditionConflict, Condition::Unconditional) => ErrorKind::Unavailable,
            _ => ErrorKind::VersionMismatch,
        }
    }

    /// Whether trying again at once may end otherwise.
    pub(crate) fn is_transient(self) -> bool {
        match self {
            Self::Kind(kind) => kind.is_retryable(),
            Self::ConditionFailed | Self::NoUpload => false,
            Self::ConditionConflict => true,
        }
    }
}

/// What an ending means.
pub(crate) fn classify(shape: &Shape<'_>) -> Meaning {
    use ErrorKind as K;
    match *shape {
        Shape::Construction => Meaning::Kind(K::Invalid),
        Shape::NoCredentials => Meaning::Kind(K::CredentialsRefused),
        Shape::CredentialSource | Shape::Connection => Meaning::Kind(K::Unavailable),
        Shape::Timeout => Meaning::Kind(K::Timeout),
        Shape::Unreadable { status } => of_status(status),
        Shape::Answer { status, code } => code.and_then(of_code).unwrap_or_else(|| of_status(status)),
    }
}

fn of_code(code: &str) -> Option<Meaning> {
    use ErrorKind as K;
    let kind = match code {
        "PreconditionFailed" | "NotModified" => return Some(Meaning::ConditionFailed),
        "ConditionalRequestConflict" | "OperationAborted" => return Some(Meaning::ConditionConflict),
        "NoSuchBucket" => K::VolumeGone,
        "NoSuchUpload" => return Some(Meaning::NoUpload),
        "NoSuchKey" | "NoSuchVersion" | "NotFound" => K::NotFound,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "InvalidObjectState" | "InvalidPayer"
        | "QuotaExceeded" | "UserSuspended" => K::Forbidden,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => K::CredentialsExpired,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "InvalidSecurity"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "AuthFailure"
        | "NotSignedUp"
        | "MissingSecurityHeader" => K::CredentialsRefused,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "TooManyRequests"
        | "TooManyRequestsException" => K::Throttled,
        "RequestTimeout" | "RequestTimeoutException" => K::Timeout,
        // A clock that is off gets set; the credentials are not to blame.
        "InternalError" | "ServiceUnavailable" | "Busy" | "RequestTimeTooSkewed" => K::Unavailable,
        "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            K::Corrupt
        }
        "NotImplemented" | "MethodNotAllowed" => K::Unsupported,
        _ => return None,
    };
    Some(Meaning::Kind(kind))
}

fn of_status(status: u16) -> Meaning {
    use ErrorKind as K;
    Meaning::Kind(match status {
        // Done, but the document that says so cannot be read.
        200..=299 => K::Corrupt,
        304 | 412 => return Meaning::ConditionFailed,
        409 => return Meaning::ConditionConflict,
        401 => K::CredentialsRefused,
        403 => K::Forbidden,
        404 | 410 => K::NotFound,
        408 => K::Timeout,
        429 => K::Throttled,
        405 | 501 => K::Unsupported,
        307 | 500..=599 => K::Unavailable,
        _ => K::Invalid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind as K;

    #[test]
    fn answers() {
        let table: &[(u16, Option<&str>, K)] = &[
            (404, Some("NoSuchBucket"), K::VolumeGone),
            (404, Some("NoSuchKey"), K::NotFound),
            (404, None, K::NotFound),
            (403, None, K::Forbidden),
            (403, Some("AccessDenied"), K::Forbidden),
            (403, Some("InvalidAccessKeyId"), K::CredentialsRefused),
            (403, Some("SignatureDoesNotMatch"), K::CredentialsRefused),
            (400, Some("ExpiredToken"), K::CredentialsExpired),
            (403, Some("RequestTimeTooSkewed"), K::Unavailable),
            (503, Some("SlowDown"), K::Throttled),
            (200, None, K::Corrupt),
            (429, None, K::Throttled),
            (503, None, K::Unavailable),
            (500, Some("InternalError"), K::Unavailable),
            (502, Some("SomethingNew"), K::Unavailable),
            (200, Some("InternalError"), K::Unavailable),
            (400, Some("RequestTimeout"), K::Timeout),
            (400, Some("BadDigest"), K::Corrupt),
            (400, Some("InvalidPart"), K::Invalid),
            (400, Some("EntityTooSmall"), K::Invalid),
            (416, Some("InvalidRange"), K::Invalid),
            (301, Some("PermanentRedirect"), K::Invalid),
            (501, Some("NotImplemented"), K::Unsupported),
            (405, None, K::Unsupported),
            (0, Some("AccessDenied"), K::Forbidden),
        ];
        for &(status, code, kind) in table {
            let meaning = classify(&Shape::Answer { status, code });
            assert_eq!(meaning, Meaning::Kind(kind), "{status} {code:?}");
            assert_eq!(meaning.is_transient(), kind.is_retryable(), "{status} {code:?}");
        }
    }

    #[test]
    fn other_endings() {
        let table = [
            (Shape::Construction, K::Invalid),
            (Shape::NoCredentials, K::CredentialsRefused),
            (Shape::CredentialSource, K::Unavailable),
            (Shape::Timeout, K::Timeout),
            (Shape::Connection, K::Unavailable),
            (Shape::Unreadable { status: 200 }, K::Corrupt),
            (Shape::Unreadable { status: 503 }, K::Unavailable),
            (Shape::Unreadable { status: 404 }, K::NotFound),
        ];
        for (shape, kind) in table {
            assert_eq!(classify(&shape), Meaning::Kind(kind), "{shape:?}");
        }
    }

    #[test]
    fn conditions_decide_what_a_refusal_means() {
        let refused = classify(&Shape::Answer { status: 412, code: Some("PreconditionFailed") });
        assert!(!refused.is_transient());
        assert_eq!(refused.kind(Condition::Absent), K::AlreadyExists);
        assert_eq!(refused.kind(Condition::Matches), K::VersionMismatch);
        assert_eq!(refused.kind(Condition::Replaces), K::VersionMismatch);

        let conflict = classify(&Shape::Answer { status: 409, code: Some("ConditionalRequestConflict") });
        assert!(conflict.is_transient());
        assert_eq!(conflict.kind(Condition::Absent), K::AlreadyExists);
        assert_eq!(conflict.kind(Condition::Replaces), K::VersionMismatch);
        assert_eq!(conflict.kind(Condition::Unconditional), K::Unavailable);

        let missing = classify(&Shape::Answer { status: 404, code: Some("NoSuchKey") });
        assert_eq!(missing.kind(Condition::Replaces), K::VersionMismatch);
        assert_eq!(missing.kind(Condition::Matches), K::NotFound);

        let ended = classify(&Shape::Answer { status: 404, code: Some("NoSuchUpload") });
        assert_eq!(ended.kind(Condition::Replaces), K::NotFound);
    }

    #[test]
    fn a_bucket_that_exists_is_no_conflict_of_writes() {
        for code in ["NoSuchBucket", "AccessDenied", "SlowDown"] {
            let meaning = classify(&Shape::Answer { status: 409, code: Some(code) });
            assert!(matches!(meaning, Meaning::Kind(_)), "{code}");
        }
    }
}
