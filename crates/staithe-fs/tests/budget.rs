//! How many requests an operation may cost. Counted, not timed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod world;

use staithe_fs::{Ino, Lookup, RenameMode};
use staithe_store::decorators::Operation as Op;
use world::{READ, REPLACE, ROOT, WRITE, World, noise};

#[tokio::test]
async fn stat_of_a_cold_name_is_one_head_beside_one_list() {
    let w = World::new().await;
    w.put("f", "x").await;
    w.ino("f").await;
    assert_eq!(w.spent(), [(Op::Head, 1), (Op::List, 1)]);
    assert!(w.try_ino("missing").await.is_none());
    assert_eq!(w.spent(), [(Op::Head, 1), (Op::List, 1)]);
    // Both are remembered.
    w.ino("f").await;
    assert!(w.try_ino("missing").await.is_none());
    assert_eq!(w.spent(), []);
}

#[tokio::test]
async fn listing_costs_a_list_a_thousand_entries() {
    let w = World::new().await;
    for i in 0..2500 {
        w.put(&format!("d/{i:05}"), "x").await;
    }
    w.ino("d").await;
    w.spent();
    assert_eq!(w.list("d").await.len(), 2500);
    assert_eq!(w.spent(), [(Op::List, 3)]);
    // Again, within its time: nothing.
    assert_eq!(w.list("d").await.len(), 2500);
    assert_eq!(w.spent(), []);
}

#[tokio::test]
async fn cat_of_small_files_after_ls_is_one_get_each() {
    let w = World::new().await;
    for i in 0..20 {
        w.put(&format!("{i:02}"), format!("body {i}").into_bytes()).await;
    }
    w.list("").await;
    w.spent();
    for i in 0..20 {
        assert_eq!(w.cat(&format!("{i:02}")).await.unwrap(), format!("body {i}").into_bytes());
    }
    assert_eq!(w.spent(), [(Op::Get, 20)]);
}

#[tokio::test]
async fn looking_at_many_files_without_opening_them_stops_fetching_their_bytes() {
    let w = World::new().await;
    for i in 0..20 {
        w.put(&format!("{i:02}"), noise(1000)).await;
    }
    w.list("").await;
    w.spent();
    for i in 0..20 {
        w.ino(&format!("{i:02}")).await;
    }
    let spent = w.spent();
    assert!(spent.contains(&(Op::Head, 18)), "{spent:?}");
}

#[tokio::test]
async fn create_and_close_in_a_listed_directory_is_one_put() {
    let w = World::new().await;
    w.list("").await;
    w.spent();
    w.create("", "new", b"hello").await.unwrap();
    assert_eq!(w.spent(), [(Op::Put, 1)]);
    assert_eq!(w.stored("new").await.unwrap(), b"hello");
}

#[tokio::test]
async fn overwrite_is_one_put() {
    let w = World::new().await;
    w.create("", "f", b"old").await.unwrap();
    w.spent();
    let handle = w.open("f", REPLACE).await;
    w.fs.write(handle, 0, b"new!").unwrap();
    w.close(handle).await.unwrap();
    assert_eq!(w.spent(), [(Op::Put, 1)]);
    assert_eq!(w.stored("f").await.unwrap(), b"new!");
}

#[tokio::test]
async fn rename_of_a_stored_file_is_one_copy_and_one_delete() {
    let w = World::new().await;
    w.create("", "a", b"1").await.unwrap();
    assert!(matches!(w.fs.lookup(Ino::ROOT, "b").await.unwrap(), Lookup::Absent { .. }));
    w.spent();
    w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "b", RenameMode::Replace).await.unwrap();
    assert_eq!(w.spent(), [(Op::Copy, 1), (Op::Delete, 1)]);
    assert_eq!(w.cat("b").await.unwrap(), b"1");
    assert!(w.stored("a").await.is_none());
}

#[tokio::test]
async fn unlink_is_one_delete_and_mkdir_one_put() {
    let w = World::new().await;
    w.create("", "a", b"1").await.unwrap();
    w.spent();
    w.fs.unlink(Ino::ROOT, "a").await.unwrap();
    assert_eq!(w.spent(), [(Op::Delete, 1)]);
    assert!(matches!(w.fs.lookup(Ino::ROOT, "d").await.unwrap(), Lookup::Absent { .. }));
    w.spent();
    w.fs.mkdir(Ino::ROOT, "d", 0o755, ROOT).await.unwrap();
    assert_eq!(w.spent(), [(Op::Put, 1)]);
}

#[tokio::test]
async fn a_never_stored_file_is_renamed_and_removed_without_a_request() {
    let w = World::new().await;
    let (_, opened) = w.fs.create(Ino::ROOT, "a", 0o644, WRITE, ROOT).await.unwrap();
    w.fs.write(opened.handle, 0, b"x").unwrap();
    w.fs.lookup(Ino::ROOT, "b").await.unwrap();
    w.spent();
    w.fs.rename(Ino::ROOT, "a", Ino::ROOT, "b", RenameMode::Replace).await.unwrap();
    w.fs.unlink(Ino::ROOT, "b").await.unwrap();
    w.close(opened.handle).await.unwrap();
    assert_eq!(w.spent(), []);
    assert_eq!(w.bucket.object_count(), 0);
}

#[tokio::test]
async fn a_sequential_read_fetches_what_it_reads() {
    let w = World::new().await;
    let body = noise(20 << 20);
    w.put("big", body.clone()).await;
    w.ino("big").await;
    let before = w.log.bytes_received();
    assert!(w.cat("big").await.unwrap() == body);
    let fetched = w.log.bytes_received() - before;
    assert!(fetched as f64 <= 1.05 * body.len() as f64, "{fetched} bytes fetched\n{}", w.log.table());
}

#[tokio::test]
async fn a_small_change_inside_a_large_object_sends_little() {
    let w = World::new().await;
    let size: usize = 192 << 20;
    let mut body = noise(size);
    w.put("big", body.clone()).await;
    let handle = w.open("big", WRITE).await;
    let (sent, received) = (w.log.bytes_sent(), w.log.bytes_received());
    w.fs.write(handle, 100 << 20, &[7; 4096]).unwrap();
    w.close(handle).await.unwrap();
    let (sent, received) = (w.log.bytes_sent() - sent, w.log.bytes_received() - received);
    assert!(sent <= 16 << 20, "{sent} bytes sent\n{}", w.log.table());
    assert!(received <= 32 << 20, "{received} bytes fetched\n{}", w.log.table());
    body[100 << 20..][..4096].fill(7);
    assert!(w.stored("big").await.unwrap() == body);
}

#[tokio::test]
async fn a_large_file_is_uploaded_while_it_is_written() {
    let w = World::new().await;
    let body = noise(50 << 20);
    let (_, opened) = w.fs.create(Ino::ROOT, "big", 0o644, WRITE, ROOT).await.unwrap();
    for (i, piece) in body.chunks(1 << 20).enumerate() {
        w.fs.write(opened.handle, (i as u64) << 20, piece).unwrap();
        tokio::task::yield_now().await;
    }
    w.close(opened.handle).await.unwrap();
    assert!(w.stored("big").await.unwrap() == body);
    assert!(w.log.bytes_sent() as f64 <= 1.02 * body.len() as f64, "{}", w.log.table());
    let ino = w.ino("big").await;
    let reader = w.fs.open_file(ino, READ).await.unwrap().handle;
    assert_eq!(w.read(reader, 30 << 20, 4096).await.unwrap(), &body[30 << 20..][..4096]);
}
