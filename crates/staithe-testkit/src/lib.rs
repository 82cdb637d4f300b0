//! Real parts for staithe's tests: an S3 server over HTTP, network faults, real mounts
