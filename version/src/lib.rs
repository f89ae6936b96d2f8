//! What the binaries say of themselves.

/// The version and the commit it was built from, as `0.1.0 (0123456789ab)`; `unknown` stands for
/// the commit where there was no git.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TIDEMARK_COMMIT"), ")");
