//! Keys in places where they need an encoding: copy sources, listings, and our own page tokens.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use staithe_store::{Key, PageToken, VersionId};

/// Everything but RFC 3986's unreserved characters and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The `x-amz-copy-source` of one object, or of one version of it.
pub(crate) fn copy_source(bucket: &str, key: &Key, version: Option<&VersionId>) -> String {
    let mut source = format!("{bucket}/{}", utf8_percent_encode(key.as_str(), PATH));
    if let Some(id) = version {
        source.push_str("?versionId=");
        source.extend(utf8_percent_encode(id.as_str(), PATH));
    }
    source
}

/// A key or prefix of a listing whose answer says `EncodingType` url. A space may come as `+` (S3 does that);
/// a true plus is always `%2B`. Answers `None` for what is not UTF-8: no key of ours is.
pub(crate) fn decode_listed(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}

/// Two markers in one page token.
pub(crate) fn join_markers(key: &str, id: Option<&str>) -> PageToken {
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
    match id {
        Some(id) => PageToken::new(format!("{key}&{}", utf8_percent_encode(id, NON_ALPHANUMERIC))),
        None => PageToken::new(key.to_string()),
    }
}

/// The markers of a page token; `None` if it is not one of ours.
pub(crate) fn split_markers(token: &PageToken) -> Option<(String, Option<String>)> {
    let decode = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    match token.as_str().split_once('&') {
        Some((key, id)) => Some((decode(key)?, Some(decode(id)?))),
        None => Some((decode(token.as_str())?, None)),
    }
}

/// Whether an XML 1.0 document can carry this key and give it back unchanged: control characters cannot pass,
/// and line ends are normalised.
pub(crate) fn fits_xml(key: &Key) -> bool {
    key.as_str().chars().all(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &[&str] =
        &["/lead", "a//b", "sp ace", "pl+us", "per%cent", "é/日本/😀", "tab\tnl\n\u{1}", "a&b?c=d#e", "~-_."];

    #[test]
    fn copy_sources() {
        let key = |s: &str| Key::new(s).unwrap();
        assert_eq!(copy_source("b", &key("a/b c+d%é"), None), "b/a/b%20c%2Bd%25%C3%A9");
        assert_eq!(
            copy_source("b", &key("/x?y"), Some(&VersionId::new("v/1="))),
            "b//x%3Fy?versionId=v/1%3D"
        );
    }

    #[test]
    fn listed_keys_come_back() {
        for key in ODD {
            let by_percent = utf8_percent_encode(key, PATH).to_string();
            assert_eq!(decode_listed(&by_percent).as_deref(), Some(*key));
            assert_eq!(decode_listed(&by_percent.replace("%20", "+")).as_deref(), Some(*key));
        }
        assert_eq!(decode_listed("%FF"), None);
    }

    #[test]
    fn markers_come_back() {
        for key in ODD {
            for id in [None, Some(""), Some("v&1/=+")] {
                let token = join_markers(key, id);
                assert_eq!(split_markers(&token), Some(((*key).to_owned(), id.map(str::to_owned))));
            }
        }
    }

    #[test]
    fn what_xml_cannot_carry() {
        let fits = |s: &str| fits_xml(&Key::new(s).unwrap());
        assert!(fits("é <&> \" '"));
        assert!(!fits("a\u{1}") && !fits("a\r") && !fits("a\n") && !fits("a\u{fffe}"));
    }
}
