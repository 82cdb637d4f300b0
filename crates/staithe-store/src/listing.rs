//! How a page of a listing is put together, for every store that can walk its keys in order.
//!
//! A store hands over one function: the first entry at or after a text. The rules of S3's `ListObjectsV2`
//! (what a prefix rolls up, what counts toward a page, where the next page goes on) are here and only here.

use std::borrow::Cow;

use crate::{ListPage, ListRequest, ObjectSummary, PageToken, Result, checks};

/// What a walk over the keys meets next.
#[derive(Debug)]
pub enum Entry {
    /// An object.
    Object(ObjectSummary),
    /// A common prefix that the walk rolled up itself, delimiter included.
    Prefix(String),
}

/// Builds one page; `next` gives the first entry whose key is `from` or greater, in byte order.
///
/// Costs one call of `next` an entry and one more to know whether there are others.
///
/// # Errors
/// `Invalid` for a token of another store; what `next` says.
pub fn page(
    request: &ListRequest,
    page_max: u16,
    mut next: impl FnMut(&str) -> Result<Option<Entry>>,
) -> Result<ListPage> {
    let limit = usize::from(request.max_keys.unwrap_or(page_max).min(page_max));
    let mut page = ListPage::default();
    if limit == 0 {
        return Ok(page);
    }
    let mut from = first_position(request)?;
    let mut count = 0;
    while let Some(entry) = next(&from)? {
        let key = match &entry {
            Entry::Object(summary) => summary.key.as_str(),
            Entry::Prefix(prefix) => prefix,
        };
        if !key.starts_with(&request.prefix) {
            break;
        }
        if count == limit {
            page.next = Some(PageToken::new(format!("{TOKEN_MARK}{from}")));
            break;
        }
        count += 1;
        if let Some(common) = common_prefix(key, request) {
            let common = common.to_owned();
            let beyond = past_prefix(&common);
            page.prefixes.push(common);
            let Some(beyond) = beyond else { break };
            from = beyond;
        } else if let Entry::Object(summary) = entry {
            from = past_key(summary.key.as_str());
            page.objects.push(summary);
        }
    }
    Ok(page)
}

/// Tells our tokens from others'; what follows is the least key of the next page.
const TOKEN_MARK: &str = "from:";

fn first_position(request: &ListRequest) -> Result<String> {
    let wanted = match (&request.token, &request.start_after) {
        (Some(token), _) => {
            let from = token.as_str().strip_prefix(TOKEN_MARK);
            Cow::Borrowed(from.ok_or_else(|| checks::foreign_token("list", token))?)
        }
        (None, Some(after)) => Cow::Owned(past_key(after)),
        (None, None) => Cow::Borrowed(""),
    };
    Ok(if *wanted < *request.prefix { request.prefix.clone() } else { wanted.into_owned() })
}

fn common_prefix<'k>(key: &'k str, request: &ListRequest) -> Option<&'k str> {
    let delimiter = request.delimiter?;
    let rest = key.get(request.prefix.len()..)?;
    let end = request.prefix.len() + rest.find(delimiter)? + delimiter.len_utf8();
    key.get(..end)
}

/// The least text greater than `key`.
pub(crate) fn past_key(key: &str) -> String {
    format!("{key}\0")
}

/// The least text greater than everything that begins with `prefix`; `None` if there is none.
///
/// UTF-8 sorts by bytes as its scalar values sort, so the last character is raised by one.
pub(crate) fn past_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let raised = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(raised) = raised {
            text.push(raised);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_text_past_a_prefix_sorts_after_all_of_it() {
        assert_eq!(past_prefix("a/").as_deref(), Some("a0"));
        assert_eq!(past_prefix("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(past_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(past_prefix(""), None);
    }

    #[test]
    fn a_foreign_token_is_refused() {
        let request = ListRequest { token: Some(PageToken::new("x")), ..ListRequest::default() };
        let Err(error) = page(&request, 1000, |_| Ok(None)) else { panic!("accepted") };
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
