//! Mount an object-store bucket as a local filesystem that stays correct when the world changes underneath it
fn main() {}
