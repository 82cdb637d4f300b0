//! S3 and S3-compatible object stores for staithe, on the official AWS SDK
