//! A second look at a successful answer that the SDK's strict reader gives up on: some servers (moto 5.2) name
//! the root of a document otherwise than S3 does. What stands in it is as good.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// A successful answer that was not understood.
#[derive(Debug, Clone)]
pub(crate) struct Unread {
    document: String,
    /// `x-amz-version-id`.
    pub(crate) version_id: Option<String>,
}

impl Unread {
    /// The answer, if it succeeded and is text.
    pub(crate) fn of(response: &HttpResponse) -> Option<Self> {
        let document = text(response).filter(|_| response.status().is_success())?.to_owned();
        let version_id = response.headers().get("x-amz-version-id").map(str::to_owned);
        Some(Self { document, version_id })
    }

    /// The text of the first element of that name.
    pub(crate) fn element(&self, name: &str) -> Option<String> {
        element(&self.document, name)
    }
}

/// The region that an error document names for the bucket: S3 and others say there what to sign for.
pub(crate) fn region(response: &HttpResponse) -> Option<String> {
    element(text(response)?, "Region")
}

fn text(response: &HttpResponse) -> Option<&str> {
    std::str::from_utf8(response.body().bytes()?).ok()
}

/// The text of the first element of that name, without attributes or children. O(len).
fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = text.replace("&quot;", "\"").replace("&#34;", "\"").replace("&amp;", "&");
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements() {
        let document = "<?xml?><R xmlns=\"u\"><ETag>&quot;a-1&quot;</ETag><Empty></Empty><ETag>b</ETag></R>";
        assert_eq!(element(document, "ETag").as_deref(), Some("\"a-1\""));
        assert_eq!(element(document, "Empty"), None);
        assert_eq!(element(document, "Status"), None);
        assert_eq!(element("<ETag>cut", "ETag"), None);
    }
}
