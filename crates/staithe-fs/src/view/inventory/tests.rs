use std::io::Write as _;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::view::ManifestReader;

/// An inventory as S3 lays it out, with its lines in files.
struct Written {
    dir: tempfile::TempDir,
}

impl Written {
    fn new(schema: &str, files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["2026-01-01T01-00Z", "data"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let listed: Vec<Value> = files
            .iter()
            .enumerate()
            .map(|(n, lines)| {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(lines.as_bytes()).unwrap();
                let packed = packed.finish().unwrap();
                std::fs::write(dir.path().join(format!("data/{n}.csv.gz")), &packed).unwrap();
                let md5 = format!("{:032x}", u128::from_be_bytes(Md5::digest(&packed).into()));
                serde_json::json!({ "key": format!("b/conf/data/{n}.csv.gz"), "MD5checksum": md5 })
            })
            .collect();
        let json = serde_json::json!({
            "sourceBucket": "b", "fileFormat": "CSV", "creationTimestamp": "1700000000000",
            "fileSchema": schema, "files": listed,
        });
        let written = Self { dir };
        std::fs::write(written.json(), json.to_string()).unwrap();
        written
    }

    fn json(&self) -> PathBuf {
        self.dir.path().join("2026-01-01T01-00Z/manifest.json")
    }

    fn take(&self, prefix: &str) -> Result<Vec<ViewObject>> {
        let target = self.dir.path().join("view");
        let inventory = Inventory::open(&self.json())?;
        take_inventory(&inventory, "v".into(), "u".into(), prefix, &target, |_| Ok(()))?;
        let mut reader = ManifestReader::open(&target)?;
        let mut objects = vec![];
        while let Some(object) = reader.next_object()? {
            objects.push(object);
        }
        Ok(objects)
    }

    fn refusal(&self) -> String {
        let error = self.take("").unwrap_err();
        assert!(!self.dir.path().join("view").exists());
        let left = std::fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(left, 2, "something was left behind");
        crate::commit::with_causes(&error)
    }
}

const SCHEMA: &str = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag";

#[test]
fn latest_versions_are_taken_in_order_whatever_the_order_of_the_lines() {
    let written = Written::new(
        SCHEMA,
        &[
            "\"b\",\"p/z%20%2B+.txt\",\"v1\",\"true\",\"false\",\"7\",\"2023-11-14T22:13:20.000Z\",\"0123456789abcdef0123456789abcdef\"\n\
             \"b\",\"p/gone\",\"v2\",\"true\",\"true\",\"\",\"2023-11-14T22:13:20.000Z\",\"\"\n",
            "\"b\",\"p/a\",\"\",\"true\",\"false\",\"0\",\"2023-11-14T22:13:21.500Z\",\"e-2\"\n\
             \"b\",\"p/a\",\"v0\",\"false\",\"false\",\"9\",\"2023-11-14T22:13:19.000Z\",\"old\"\n\
             \"b\",\"q\",\"\",\"true\",\"false\",\"1\",\"2023-11-14T22:13:20.000Z\",\"q\"\n",
        ],
    );
    let taken = written.take("p/").unwrap();
    let keys: Vec<_> = taken.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["p/a", "p/z + .txt"]);
    assert_eq!(taken[0].version, Version { etag: ETag::new("\"e-2\""), id: None });
    assert_eq!(taken[1].version.id, Some(VersionId::new("v1")));
    assert_eq!(taken[1].modified, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    assert_eq!(written.take("").unwrap().len(), 3);
    assert_eq!(
        ManifestReader::open(&written.dir.path().join("view")).unwrap().header().created,
        taken[1].modified
    );
}

#[test]
fn an_inventory_that_makes_no_sense_is_refused_in_one_sentence() {
    let line = |key: &str| format!("\"{key}\",\"1\",\"2023-11-14T22:13:20Z\",\"e\"\n");
    let schema = "Key, Size, LastModifiedDate, ETag";
    assert_eq!(Written::new(schema, &[&line("a")]).take("").unwrap().len(), 1);
    for (schema, lines, word) in [
        ("Bucket, Key, Size", line("a"), "LastModifiedDate"),
        (SCHEMA, line("b"), "too few fields"),
        (schema, line("%ff"), "not UTF-8"),
        (schema, line(""), "empty"),
        (schema, [line("a"), line("a")].concat(), "twice"),
        ("Bucket, Key, Size, LastModifiedDate, ETag", format!("\"c\",{}", line("a")), "another bucket"),
    ] {
        let said = Written::new(schema, &[&lines]).refusal();
        assert!(said.contains(word) && !said.contains('\n'), "{said}");
    }
    let damaged = Written::new(schema, &[&line("a")]);
    let data = damaged.dir.path().join("data/0.csv.gz");
    let whole = std::fs::read(&data).unwrap();
    std::fs::write(&data, [&whole[..], b"more"].concat()).unwrap();
    assert!(!damaged.refusal().is_empty());
    std::fs::remove_file(&data).unwrap();
    assert!(damaged.refusal().contains("not beside it"));
    std::fs::write(damaged.json(), "{}").unwrap();
    assert!(damaged.refusal().contains("fileFormat"));
}

#[test]
fn what_does_not_fit_into_memory_is_sorted_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut sorter = Sorter::new(&dir.path().join("view"), 4096);
    let object = |n: u64| ViewObject {
        key: Key::new(format!("{:04}", n * 7919 % 5000)).unwrap(),
        size: n,
        version: Version { etag: ETag::new("e"), id: None },
        modified: UNIX_EPOCH,
    };
    for n in 0..5000 {
        sorter.push(object(n)).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "runs have no names");
    let mut keys = vec![];
    sorter
        .finish(|object| {
            keys.push(object.key.as_str().to_owned());
            Ok(())
        })
        .unwrap();
    assert_eq!(keys, (0..5000).map(|n| format!("{n:04}")).collect::<Vec<_>>());
    let mut twice = Sorter::new(&dir.path().join("view"), 1);
    twice.push(object(1)).unwrap();
    twice.push(object(1)).unwrap();
    assert!(twice.finish(|_| Ok(())).unwrap_err().to_string().contains("twice"));
}
