//! A versioned prefetch part queue: out-of-order fetchers, one in-order reader, never two versions
