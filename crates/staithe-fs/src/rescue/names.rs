//! Where something goes whose name cannot be, or is taken.

use std::borrow::Cow;

use crate::names::{NAME_BYTES_MAX, check_name};

/// The name of a file of which not all is here.
pub(super) fn partial(path: &str) -> String {
    let (dir, name) = split(path);
    join(dir, &with_ending(name, ".partial"))
}

/// A name as a file can have it: itself, if that is one.
pub(super) fn possible(name: &str) -> Cow<'_, str> {
    if check_name(name).is_ok() {
        return Cow::Borrowed(name);
    }
    Cow::Owned(match name {
        "" => String::from("%"),
        "." => String::from("%2E"),
        ".." => String::from("%2E%2E"),
        // What is too long is cut.
        _ => with_ending(&name.replace('/', "%2F").replace('\0', "%00"), ".shortened"),
    })
}

/// The `n`th name to try for something whose name is taken.
pub(super) fn beside(name: &str, n: u32) -> String {
    with_ending(name, &format!(".conflict-{n}"))
}

/// A name in a directory, whose own is empty if it is the topmost.
pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The directory that a path is in, and its name there.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn with_ending(name: &str, ending: &str) -> String {
    let most = NAME_BYTES_MAX - ending.len();
    format!("{}{ending}", &name[..name.floor_char_boundary(most)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_name_becomes_one() {
        for (name, becomes) in
            [("a", "a"), ("", "%"), (".", "%2E"), ("..", "%2E%2E"), ("a\0", "a%00.shortened")]
        {
            assert_eq!(possible(name), becomes);
        }
        let long = "\u{e9}".repeat(300);
        for made in [possible(&long).into_owned(), beside(&long, 17), partial(&format!("d/{long}"))] {
            assert!(check_name(split(&made).1).is_ok(), "{made}");
        }
        assert_eq!(partial("d/file"), "d/file.partial");
        assert_eq!(beside("file", 2), "file.conflict-2");
    }
}
