//! What tells one bucket from every other one of the same name.

/// Where Amazon's own servers are, and in which partition: the names of buckets are unique in each.
const AMAZON: [(&str, &str); 2] = [(".amazonaws.com.cn", "China"), (".amazonaws.com", "")];
/// What the regions of a partition begin with.
const PARTITIONS: [(&str, &str); 4] = [
    ("cn-", "China"),
    ("us-gov-", "GovCloud"),
    ("us-iso", "isolated regions"),
    ("eu-isoe-", "isolated regions"),
];

/// The bucket and the server that has it. However Amazon is reached, from whichever region, a bucket there has one
/// name.
pub(crate) fn name(bucket: &str, endpoint: Option<&str>, region: &str) -> String {
    let own = endpoint.map(normalised).filter(|url| !is_amazon(url));
    if let Some(url) = own {
        return format!("s3://{bucket} at {url}");
    }
    let partition = endpoint.and_then(partition_of_host).or_else(|| partition_of_region(region));
    let partition = partition.map(|name| format!(" ({name})")).unwrap_or_default();
    format!("s3://{bucket} at Amazon S3{partition}")
}

/// Whether a name that [`name`] gave is of a bucket of Amazon's.
pub(crate) fn is_of_amazon(volume: &str) -> bool {
    volume.contains(" at Amazon S3")
}

fn is_amazon(url: &str) -> bool {
    AMAZON.iter().any(|(domain, _)| host(url).ends_with(domain))
}

fn partition_of_host(url: &str) -> Option<&'static str> {
    let url = normalised(url);
    let by_domain = AMAZON.iter().find(|(domain, _)| host(&url).ends_with(domain)).map(|(_, name)| *name);
    by_domain.filter(|name| !name.is_empty()).or_else(|| host(&url).split('.').find_map(partition_of_region))
}

fn partition_of_region(region: &str) -> Option<&'static str> {
    PARTITIONS.iter().find(|(start, _)| region.starts_with(start)).map(|(_, name)| *name)
}

/// The host of a normalised URL, without its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => rest,
    }
}

/// A URL with scheme and host in lower case, and without the scheme's own port, a user, and slashes at the end.
fn normalised(url: &str) -> String {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("", url.trim()));
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    format!("{scheme}://{}", format!("{}/{path}", authority.trim_end_matches('.')).trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_one_name_however_it_is_reached() {
        let here = name("b", Some("http://127.0.0.1:9000"), "us-east-1");
        assert_eq!(here, "s3://b at http://127.0.0.1:9000");
        assert_eq!(name("b", Some("HTTP://127.0.0.1:9000/"), "eu-west-1"), here);
        assert_eq!(name("b", Some("https://Minio:443"), "r"), name("b", Some("https://minio/"), "r"));
        assert!(!is_of_amazon(&here));
        let amazon = name("b", None, "us-east-1");
        assert!(is_of_amazon(&amazon) && is_of_amazon(&name("b", None, "cn-north-1")));
        for (endpoint, region) in [
            (None, "eu-central-1"),
            (Some("https://s3.eu-central-1.amazonaws.com"), "eu-central-1"),
            (Some("https://bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com/"), "us-east-1"),
        ] {
            assert_eq!(name("b", endpoint, region), amazon);
        }
        let china = name("b", None, "cn-north-1");
        assert_eq!(name("b", Some("https://s3.cn-northwest-1.amazonaws.com.cn"), "us-east-1"), china);
        let gov = name("b", None, "us-gov-west-1");
        assert_eq!(name("b", Some("https://s3.us-gov-east-1.amazonaws.com"), "us-east-1"), gov);
    }

    #[test]
    fn other_buckets_and_other_servers_have_other_names() {
        let all = [
            name("b", None, "us-east-1"),
            name("c", None, "us-east-1"),
            name("b", None, "cn-north-1"),
            name("b", None, "us-gov-west-1"),
            name("b", Some("http://127.0.0.1:9000"), "us-east-1"),
            name("b", Some("https://127.0.0.1:9000"), "us-east-1"),
            name("b", Some("http://127.0.0.1:9001"), "us-east-1"),
            name("b", Some("http://127.0.0.1:9000/tenant"), "us-east-1"),
            name("b", Some("http://[::1]:9000"), "us-east-1"),
            name("b", Some("https://s3.example.com"), "us-east-1"),
            name("b", Some("https://notamazonaws.com"), "us-east-1"),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }
}
