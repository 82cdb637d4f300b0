//! From a configuration to an open store: credentials, endpoint, region, bucket, capabilities.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Builder, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;
use staithe_store::{Capabilities, ErrorKind, Result, StoreError};
use tokio::sync::Semaphore;

use crate::bucket::in_place_of;
use crate::capability;
use crate::config::{S3Config, StaticCredentials};
use crate::failure::Failure;
use crate::link::Link;
use crate::retry::{Backoff, Patience};
use crate::{transport, volume};

/// Where the bucket of a directory bucket's zone is told: these are no general purpose buckets.
const DIRECTORY_BUCKET: &str = "--x-s3";

/// Opens the way to the bucket and finds out what the server does. Endpoint and region are decided in `config` then.
pub(crate) async fn connect(config: &mut S3Config) -> Result<(Link, Capabilities)> {
    config.check()?;
    let shared = load(config).await;
    config.endpoint_url = config.endpoint_url.take().or_else(|| configured_endpoint(&shared));
    let (mut link, region) = open(config, &shared).await?;
    config.region = Some(region);
    link.versions = link.keeps_versions().await.map_err(|f| refused(config, f))?;
    let documented = config.endpoint_url.is_none() && !config.bucket.ends_with(DIRECTORY_BUCKET);
    let capabilities = if documented {
        Capabilities { versions: link.versions, ..Capabilities::S3 }
    } else if config.probe_conditions {
        Box::pin(capability::probe(&mut link, &config.scratch_prefix)).await?
    } else {
        capability::untested(link.versions)
    };
    Ok((opened(config, link), capabilities))
}

/// Another way to the bucket that `config` was decided for, with credentials that are looked for anew. What was found
/// out about the server when `old` was opened stays.
pub(crate) async fn reconnect(config: &S3Config, old: &Link) -> Result<Link> {
    let (link, _) = open(config, &load(config).await).await?;
    let link = opened(config, link);
    Ok(Link { checksum: old.checksum, tags_are_md5: old.tags_are_md5, versions: old.versions, ..link })
}

/// Whether other credentials are found now than those that the way was opened with. Asks nothing of the store.
pub(crate) async fn finds_others(config: &S3Config, old: &Link) -> bool {
    let Some(found) = &old.found else { return false };
    let looking = async { have_credentials(&load(config).await, patience_for_credentials(config)).await };
    looking.await.is_ok_and(|now| {
        let parts = |keys: &Credentials| {
            [keys.access_key_id(), keys.secret_access_key(), keys.session_token().unwrap_or_default()]
                .map(str::to_owned)
        };
        parts(&now) != parts(found)
    })
}

fn patience_for_credentials(config: &S3Config) -> Duration {
    config.connect_timeout + config.first_byte_timeout
}

/// The same way, for whoever uses it from now on.
fn opened(config: &S3Config, mut link: Link) -> Link {
    link.backoff.attempts = config.max_attempts_once_open.unwrap_or(config.max_attempts);
    link
}

/// The region to sign for where nobody names one: S3's own default, and what other servers mostly expect.
const FALLBACK_REGION: &str = "us-east-1";

async fn load(config: &S3Config) -> SdkConfig {
    let mut profile_region = ProfileFileRegionProvider::builder();
    if let Some(profile) = &config.profile {
        profile_region = profile_region.profile_name(profile);
    }
    // The instance's metadata service is not asked: the bucket knows its region, and tells it.
    let region = RegionProviderChain::first_try(config.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile_region.build())
        .or_else(Region::new(FALLBACK_REGION));
    let timeouts = TimeoutConfig::builder().connect_timeout(config.connect_timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .http_client(transport::pooled(config))
        .timeout_config(timeouts);
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(keys) = &config.credentials {
        let StaticCredentials { access_key_id, secret_access_key, session_token } = keys.clone();
        let keys = Credentials::new(access_key_id, secret_access_key, session_token, None, "configuration");
        loader = loader.credentials_provider(keys);
    }
    if config.no_sign_request {
        loader = loader.no_credentials();
    }
    loader.load().await
}

/// The endpoint of the environment or the profile, that of S3 before that of all services.
fn configured_endpoint(shared: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let for_s3 = key.build().ok().and_then(|key| shared.service_config()?.load_config(key));
    for_s3.or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// Looks for credentials before any request, so that their absence is told as what it is.
async fn have_credentials(shared: &SdkConfig, patience: Duration) -> Result<Credentials> {
    let none = || {
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile \
         (AWS_PROFILE), or send requests unsigned"
    };
    let refused = |text: &str| StoreError::new(ErrorKind::CredentialsRefused, "connect", text);
    let provider = shared.credentials_provider().ok_or_else(|| refused(none()))?;
    match tokio::time::timeout(patience, provider.provide_credentials()).await {
        Ok(Ok(found)) => Ok(found),
        Err(_) => {
            let text = format!("the source of the credentials did not answer in {patience:?}");
            Err(StoreError::new(ErrorKind::Timeout, "connect", text))
        }
        Ok(Err(error)) => {
            use aws_credential_types::provider::error::CredentialsError as E;
            let text = match error {
                E::CredentialsNotLoaded(_) => none(),
                _ => "the credentials cannot be loaded; see the causes, and check the profile",
            };
            Err(refused(text).with_source(error))
        }
    }
}

/// Looks for credentials, builds the clients and asks the bucket, once more in its own region if it names another: the
/// way to it, and its region.
async fn open(config: &S3Config, shared: &SdkConfig) -> Result<(Link, String)> {
    let found = if config.no_sign_request {
        None
    } else {
        Some(have_credentials(shared, patience_for_credentials(config)).await?)
    };
    let region = shared.region().map_or_else(|| FALLBACK_REGION.to_owned(), ToString::to_string);
    let link = build(config, shared, &region, found.clone());
    let Err(failure) = link.ask_bucket(&link.client).await else { return Ok((link, region)) };
    let Some(own) = failure.region.clone().filter(|own| *own != region) else {
        return Err(refused(config, failure));
    };
    tracing::info!(from = region, to = own, "the bucket lives in another region");
    let link = build(config, shared, &own, found);
    match link.ask_bucket(&link.client).await {
        Ok(_) => Ok((link, own)),
        Err(failure) => Err(refused(config, failure)),
    }
}

fn build(config: &S3Config, shared: &SdkConfig, region: &str, found: Option<Credentials>) -> Link {
    let endpoint = config.endpoint_url.as_deref();
    let settings = || {
        let mut settings = Builder::from(shared)
            .region(Region::new(region.to_owned()))
            // Tries are this crate's: it knows what a failed condition means, and when a body was cut.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(config.path_style.unwrap_or(endpoint.is_some()));
        settings.set_endpoint_url(endpoint.map(str::to_owned));
        if config.no_sign_request { settings.allow_no_auth() } else { settings }
    };
    let fresh = settings().http_client(transport::fresh());
    Link {
        client: Client::from_conf(settings().build()),
        fresh: Client::from_conf(fresh.build()),
        found,
        bucket: config.bucket.clone(),
        volume: volume::name(&config.bucket, endpoint, region),
        backoff: Backoff {
            attempts: config.max_attempts,
            attempts_in_conflict: config.max_attempts,
            base: config.backoff_base,
            max: config.backoff_max,
        },
        patience: Patience {
            first_byte: config.first_byte_timeout,
            stall: config.stall_timeout,
            server_work: config.server_work_timeout,
            upload_floor: config.upload_floor,
        },
        gate: Semaphore::new(config.max_concurrency.min(Semaphore::MAX_PERMITS)),
        checksum: config.upload_checksum,
        tags_are_md5: false,
        versions: false,
    }
}

/// A failure of the first questions, in words for whoever starts a mount.
fn refused(config: &S3Config, failure: Failure) -> StoreError {
    let (bucket, place) = (&config.bucket, config.endpoint_url.as_deref().unwrap_or("Amazon S3"));
    let kind = failure.error.kind();
    let text = match kind {
        ErrorKind::VolumeGone => format!("there is no bucket {bucket:?} at {place}; check its name"),
        ErrorKind::Forbidden => {
            // Some servers answer this to unknown keys, too.
            format!("the bucket {bucket:?} may not be listed; check the keys, and allow them s3:ListBucket")
        }
        ErrorKind::CredentialsRefused => {
            format!("{place} does not accept the credentials; check the access key and the secret")
        }
        ErrorKind::CredentialsExpired => "the credentials have expired; renew them".to_owned(),
        ErrorKind::Unavailable => format!("{place} cannot be reached; check the endpoint and the network"),
        ErrorKind::Timeout => format!("{place} does not answer; check the endpoint and the network"),
        _ => return failure.error,
    };
    in_place_of(failure.error, StoreError::new(kind, "connect", text))
}
