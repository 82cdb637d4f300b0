//! Which names a path may carry, and which keys no path can reach.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{FsError, FsErrorKind, Result};

/// The longest name of one path component, in bytes (`NAME_MAX` on Linux).
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Most bytes of a host name that a conflict name carries; the rest is cut.
const HOST_BYTES_MAX: usize = 64;

/// Checks one path component.
///
/// # Errors
/// `NameTooLong` over 255 bytes; `Invalid` for an empty name, `.`, `..`, and one with `/` or NUL in it.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let refuse = |kind, why: &str| Err(FsError::new(kind, format!("the name {name:?} {why}")));
    match name {
        "" => refuse(FsErrorKind::Invalid, "is empty"),
        "." | ".." => refuse(FsErrorKind::Invalid, "means a directory itself"),
        _ if name.len() > NAME_BYTES_MAX => refuse(FsErrorKind::NameTooLong, "has more than 255 bytes"),
        _ if name.contains('/') => refuse(FsErrorKind::Invalid, "contains a slash"),
        _ if name.contains('\0') => refuse(FsErrorKind::Invalid, "contains a NUL byte"),
        _ => Ok(()),
    }
}

/// The paths that lie below no other.
pub(crate) fn topmost(paths: &[String]) -> impl Iterator<Item = &str> {
    let all: BTreeSet<&str> = paths.iter().map(|path| path.trim_matches('/')).collect();
    let has_above = |all: &BTreeSet<&str>, path: &str| {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        !path.is_empty() && above.chain([""]).any(|above| all.contains(above))
    };
    all.clone().into_iter().filter(move |path| !has_above(&all, path))
}

/// Why no path can name a key. [`Display`](fmt::Display) is the sentence that a user reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HiddenReason {
    /// A leading slash, or two in a row.
    EmptyPart,
    /// A part that is `.` or `..`.
    DotPart,
    /// A NUL byte.
    Nul,
    /// A part of more than 255 bytes.
    PartTooLong,
}

impl fmt::Display for HiddenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyPart => "it has an empty part (a leading slash, or two slashes in a row)",
            Self::DotPart => "it has a part that is `.` or `..`",
            Self::Nul => "it has a NUL byte",
            Self::PartTooLong => "it has a part of more than 255 bytes",
        })
    }
}

/// Why no path can name the object at `relative_key` (the key without the mount's prefix), or `None` if one can.
///
/// One trailing slash is the form of a directory marker and is no reason; the empty key is the root's marker.
/// The first reason from the left is given. O(length).
pub fn hidden_reason(relative_key: &str) -> Option<HiddenReason> {
    if relative_key.is_empty() {
        return None;
    }
    relative_key.strip_suffix('/').unwrap_or(relative_key).split('/').find_map(|part| match part {
        "" => Some(HiddenReason::EmptyPart),
        "." | ".." => Some(HiddenReason::DotPart),
        _ if part.contains('\0') => Some(HiddenReason::Nul),
        _ if part.len() > NAME_BYTES_MAX => Some(HiddenReason::PartTooLong),
        _ => None,
    })
}

/// The name beside `name` under which a lost write is kept: `name.conflict-<host>-<YYYYMMDDThhmmss.mmmZ>`.
///
/// At most 255 bytes: `name` is cut, on a character boundary, to make room. What a name cannot carry in `host`
/// becomes `-`.
pub(crate) fn conflict_name(name: &str, host: &str, now: SystemTime) -> String {
    let host: String = cut(host, HOST_BYTES_MAX).replace(['/', '\0'], "-");
    let suffix = format!(".conflict-{host}-{}", Stamp(now));
    format!("{}{suffix}", cut(name, NAME_BYTES_MAX - suffix.len()))
}

/// The longest prefix of `text` of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A time as `YYYYMMDDThhmmss.mmmZ` in UTC; years outside 0 to 9999 are clamped to those.
struct Stamp(SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const YEAR_0: i128 = -62_167_219_200_000;
        const YEAR_9999_END: i128 = 253_402_300_799_999;
        let millis = match self.0.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_millis() as i128,
            Err(before) => -(before.duration().as_nanos().div_ceil(1_000_000) as i128),
        }
        .clamp(YEAR_0, YEAR_9999_END) as i64;
        let (seconds, milli) = (millis.div_euclid(1000), millis.rem_euclid(1000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}.{milli:03}Z")
    }
}

/// The proleptic Gregorian date `days` after 1970-01-01 (the algorithm of Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn kind(name: &str) -> Option<FsErrorKind> {
        check_name(name).err().map(|e| e.kind())
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "...", ".a", "a b", "\u{e9}\n", &"n".repeat(255)] {
            assert_eq!(kind(good), None, "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "/", "a\0"] {
            assert_eq!(kind(bad), Some(FsErrorKind::Invalid), "{bad:?}");
        }
        assert_eq!(kind(&"n".repeat(256)), Some(FsErrorKind::NameTooLong));
        assert_eq!(kind(&"\u{e9}".repeat(128)), Some(FsErrorKind::NameTooLong));
    }

    #[test]
    fn keys_that_no_path_can_name_say_why() {
        let long = "p".repeat(256);
        for (key, reason) in [
            ("a//b", HiddenReason::EmptyPart),
            ("/a", HiddenReason::EmptyPart),
            ("/", HiddenReason::EmptyPart),
            ("a//", HiddenReason::EmptyPart),
            ("a/./b", HiddenReason::DotPart),
            ("../b", HiddenReason::DotPart),
            ("a/..", HiddenReason::DotPart),
            ("a/../", HiddenReason::DotPart),
            ("a/b\0c", HiddenReason::Nul),
            (&long, HiddenReason::PartTooLong),
            (&format!("a/{long}/"), HiddenReason::PartTooLong),
        ] {
            assert_eq!(hidden_reason(key), Some(reason), "{key:?}");
            assert!(reason.to_string().starts_with("it has"), "{reason}");
        }
        for key in ["", "a", "a/", "a/b", "a/...", "a/.b/"] {
            assert_eq!(hidden_reason(key), None, "{key:?}");
        }
    }

    #[test]
    fn a_conflict_name_says_whose_and_when() {
        let now = UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        assert_eq!(conflict_name("a.txt", "quay/1", now), "a.txt.conflict-quay-1-20240229T123456.007Z");
    }

    #[test]
    fn dates_at_the_edges() {
        let stamp = |time| Stamp(time).to_string();
        assert_eq!(stamp(UNIX_EPOCH), "19700101T000000.000Z");
        assert_eq!(stamp(UNIX_EPOCH - Duration::from_millis(1)), "19691231T235959.999Z");
        assert_eq!(stamp(UNIX_EPOCH - Duration::from_nanos(1)), "19691231T235959.999Z");
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_hours(264_384)), "20000229T000000.000Z");
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(4_107_542_399)), "21000228T235959.000Z");
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(1 << 60)), "99991231T235959.999Z");
    }

    proptest! {
        #[test]
        fn conflict_names_are_names(name in "\\PC{1,300}", host in "\\PC{0,100}", millis in 0..1u64 << 48) {
            let made = conflict_name(&name, &host, UNIX_EPOCH + Duration::from_millis(millis));
            prop_assert!(made.len() <= NAME_BYTES_MAX);
            prop_assert!(made.contains(".conflict-"));
            prop_assert!(!made.contains('\0'));
            if !name.contains('/') {
                prop_assert!(check_name(&made).is_ok());
            }
        }

        #[test]
        fn a_visible_key_is_made_of_good_names(key in "[a./\u{0}]{0,12}") {
            let parts_are_good = key.is_empty()
                || key.strip_suffix('/').unwrap_or(&key).split('/').all(|part| check_name(part).is_ok());
            prop_assert_eq!(hidden_reason(&key).is_none(), parts_are_good);
        }
    }

    #[test]
    fn a_path_below_another_counts_once() {
        let top = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|&path| path.to_owned()).collect();
            topmost(&paths).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(top(&["a/b", "a-b", "a", "/a/", "ab"]), ["a", "a-b", "ab"]);
        assert_eq!(top(&["a/b/c", "a/b", "a/bc"]), ["a/b", "a/bc"]);
        assert_eq!(top(&["a", "", "b/c"]), [""]);
        assert_eq!(top(&[]), [""; 0]);
    }
}
