//! Filesystem semantics over an object store: namespace, handles, read path, write path, journal
