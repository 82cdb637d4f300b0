//! A TTL dentry cache with per-directory generations and complete directories
