//! Benchmarks of staithe; see the benches of this package.
