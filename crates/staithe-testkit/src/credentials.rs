use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

/// A key pair that signs requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The access key id.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
}

impl KeyPair {
    /// The pair that every server knows from its start.
    pub fn test() -> Self {
        Self { access_key: "STAITHETESTKEY".into(), secret_key: "staithe-test-secret".into() }
    }
}

/// What becomes of requests that a key pair signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// They are served.
    #[default]
    Good,
    /// 400 `ExpiredToken`.
    Expired,
    /// 403 `InvalidAccessKeyId`, as if the pair had never been.
    Revoked,
    /// 403 `AccessDenied` to everything.
    Forbidden,
    /// 403 `AccessDenied` to everything that would change something.
    ReadOnly,
}

/// The key pairs of a server, and whether it serves unsigned requests (it does not, at first). Cheap to clone;
/// changes are effective at once.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    pairs: HashMap<String, (String, Standing)>,
    anonymous: bool,
}

impl Credentials {
    /// Makes a key pair known, in good standing.
    pub fn add(&self, pair: &KeyPair) {
        let entry = (pair.secret_key.clone(), Standing::Good);
        self.0.write().pairs.insert(pair.access_key.clone(), entry);
    }

    /// Changes the standing of a key pair; one that was never added stays unknown.
    pub fn set(&self, access_key: &str, standing: Standing) {
        if let Some(entry) = self.0.write().pairs.get_mut(access_key) {
            entry.1 = standing;
        }
    }

    /// Whether unsigned requests are served.
    pub fn allow_anonymous(&self, allow: bool) {
        self.0.write().anonymous = allow;
    }

    fn find(&self, access_key: &str) -> Option<(String, Standing)> {
        self.0.read().pairs.get(access_key).cloned()
    }
}

#[async_trait::async_trait]
impl S3Auth for Credentials {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.find(access_key) {
            Some((_, Standing::Expired)) => Err(s3_error!(ExpiredToken, "The provided token has expired.")),
            None | Some((_, Standing::Revoked)) => Err(s3_error!(
                InvalidAccessKeyId,
                "The access key id you provided does not exist in our records."
            )),
            Some((secret, _)) => Ok(SecretKey::from(secret)),
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Credentials {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let standing = match cx.credentials() {
            Some(pair) => self.find(&pair.access_key).map_or(Standing::Revoked, |(_, standing)| standing),
            None if self.0.read().anonymous => Standing::Good,
            None => Standing::Forbidden,
        };
        let name = cx.s3_op().name();
        let reads = ["Get", "Head", "List"].iter().any(|verb| name.starts_with(verb));
        match standing {
            Standing::Good => Ok(()),
            Standing::ReadOnly if reads => Ok(()),
            _ => Err(s3_error!(AccessDenied, "Access Denied")),
        }
    }
}
