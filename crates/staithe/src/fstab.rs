//! `mount.staithe`: what mount(8) starts for a line of fstab whose type is `staithe`. The same program under another name:
//! its arguments are put into the form of `staithe mount --background`.
//!
//! ```text
//! s3://bucket/prefix  /mnt  staithe  _netdev,nofail,allow_other,write_mode=back,profile=backup  0  0
//! ```
//!
//! An option of `staithe mount` is written without its dashes, with `_` or `-` between its words. What fstab has for
//! mount(8), systemd and people is passed over; what neither knows is refused by `staithe mount`, by name. No value can
//! hold a comma.

use std::ffi::OsString;

use crate::failure::Failure;

/// The name of the program.
const NAME: &str = "mount.staithe";
/// What is for others, or is so anyway.
const OTHERS: [&str; 26] = [
    "defaults",
    "rw",
    "auto",
    "noauto",
    "nouser",
    "nofail",
    "fail",
    "_netdev",
    "nosuid",
    "nodev",
    "exec",
    "async",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "loud",
    "silent",
    "mand",
    "nomand",
];
/// What begins so is for others, too.
const OTHERS_BEGIN: [&str; 3] = ["x-", "X-", "comment="];
/// What nobody could keep.
const IMPOSSIBLE: [(&str, &str); 14] = [
    ("remount", "`staithe reload` changes what can be changed of a mount"),
    ("bind", "bind a mounted one"),
    ("move", "move a mounted one"),
    ("noexec", "mount it, and bind it with noexec elsewhere"),
    ("sync", "close(2) and fsync(2) store what they say; see --write-mode"),
    ("dirsync", "changes of directories are stored as they are made; see --write-mode"),
    ("suid", "programs of a bucket are never run as somebody else"),
    ("dev", "a bucket holds no devices"),
    ("user", "root mounts it, and allow_other lets others in"),
    ("users", "root mounts it, and allow_other lets others in"),
    ("owner", "root mounts it, and allow_other lets others in"),
    ("group", "root mounts it, and allow_other lets others in"),
    ("context", "it has no security labels of its own"),
    ("help", "it is no option of a mount"),
];

/// The arguments of this process, with those of mount(8) put into our form. `None`: there is nothing to do.
///
/// # Errors
/// Wrong usage, in one sentence.
pub(crate) fn arguments(given: Vec<OsString>) -> Result<Option<Vec<OsString>>, Failure> {
    let name = given.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    if name.is_some_and(|name| name == NAME) { translate(&given) } else { Ok(Some(given)) }
}

/// From `mount.staithe SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]` (mount(8), "External helpers").
fn translate(given: &[OsString]) -> Result<Option<Vec<OsString>>, Failure> {
    let usage =
        |what: &str| Failure::usage(format!("{what}; mount(8) gives {NAME} SOURCE MOUNTPOINT -o OPTIONS"));
    let (mut places, mut options) = (Vec::new(), Vec::new());
    let mut rest = given.iter().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("-o") => {
                let list =
                    rest.next().and_then(|list| list.to_str()).ok_or_else(|| usage("-o without options"))?;
                options.extend(list.split(',').filter(|option| !option.is_empty()));
            }
            Some("-t" | "-N") => drop(rest.next()),
            Some("-f") => return Ok(None),
            Some("-s" | "-n" | "-v") => {}
            Some(flag) if flag.starts_with('-') => return Err(usage(&format!("{flag} is unknown"))),
            _ => places.push(argument.clone()),
        }
    }
    let [source, mountpoint] = places.try_into().map_err(|_| usage("there must be two names"))?;
    let mut ours: Vec<OsString> =
        ["staithe", "mount", "--background"].into_iter().map(OsString::from).collect();
    for option in options {
        ours.extend(ours_of(option)?.map(OsString::from));
    }
    ours.extend([OsString::from("--"), source, mountpoint]);
    Ok(Some(ours))
}

/// The option of `staithe mount` that an option of fstab is; `None` for what is not ours.
fn ours_of(option: &str) -> Result<Option<String>, Failure> {
    if OTHERS.contains(&option) || OTHERS_BEGIN.iter().any(|begin| option.starts_with(begin)) {
        return Ok(None);
    }
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    if let Some((_, why)) = IMPOSSIBLE.iter().find(|(impossible, _)| *impossible == name) {
        return Err(Failure::usage(format!("the mount option {option:?} cannot be kept: {why}")));
    }
    if option == "ro" {
        return Ok(Some(String::from("--read-only")));
    }
    let name = name.replace('_', "-");
    if matches!(&*name, "background" | "detached" | "version") {
        return Err(Failure::usage(format!("the mount option {option:?} is none of a line of fstab")));
    }
    Ok(Some(match value {
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Option<Vec<String>>, Failure> {
        let given = arguments.iter().map(OsString::from).collect();
        let text = |argument: OsString| argument.into_string().unwrap_or_default();
        Ok(super::arguments(given)?.map(|ours| ours.into_iter().map(text).collect()))
    }

    #[test]
    fn what_mount_gives_is_what_staithe_mount_takes() {
        let given = [
            "/sbin/mount.staithe",
            "s3://b/p",
            "/mnt",
            "-o",
            "rw,_netdev,x-systemd.automount,allow_other,write_mode=back",
            "-s",
            "-n",
            "-t",
            "staithe",
        ];
        let ours = of(&given).unwrap().unwrap();
        let expected = [
            "staithe",
            "mount",
            "--background",
            "--allow-other",
            "--write-mode=back",
            "--",
            "s3://b/p",
            "/mnt",
        ];
        assert_eq!(ours, expected);
        let read_only =
            of(&["mount.staithe", "file:///a", "/b", "-o", "ro,metadata-ttl=5min"]).unwrap().unwrap();
        assert_eq!(read_only[3..5], ["--read-only", "--metadata-ttl=5min"]);
        assert_eq!(of(&["mount.staithe", "a", "b", "-f"]).unwrap(), None);
        let plain = ["/usr/bin/staithe", "mount", "-o"];
        assert_eq!(of(&plain).unwrap().unwrap(), plain);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_in_one_sentence() {
        for (given, word) in [
            (&["mount.staithe", "a"][..], "two names"),
            (&["mount.staithe", "a", "b", "-o"], "-o without"),
            (&["mount.staithe", "a", "b", "-o", "remount,ro"], "reload"),
            (&["mount.staithe", "a", "b", "-q"], "-q is unknown"),
        ] {
            let refused = of(given).unwrap_err().sentence;
            assert!(refused.contains(word) && !refused.contains('\n'), "{refused}");
        }
    }
}
