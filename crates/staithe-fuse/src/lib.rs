//! The FUSE adapter of staithe: sessions, replies, kernel notifications, the errno table
