//! Tokens: who may do what, signed by an operator's key and verified by whoever is asked.
//!
//! A token is a JWT (RFC 7519) with the claims `role` (`device`, `service` or `admin`), `exp`,
//! `iat`, and for a device `sub`, its user, and perhaps `device`. What it says is [`Claims`], and
//! what that allows is decided there and nowhere else.
//!
//! ```text
//!   SigningKey::read ─► sign(Claims) ─► token ─► Keys::verify ─► Claims::may_…
//!   <id>.hs256, <id>.pem (private)               <id>.hs256, <id>.pem (public)
//! ```
//!
//! Two kinds of keys, by the ending of the file: `.hs256`, a shared secret in base64url, for one
//! operator's own use; `.pem`, Ed25519, where who verifies must not be able to sign. The file's
//! stem is the key's id, which every token names (`kid`).
//!
//! Invariants: the algorithm is the key's, never the token's; a set of keys is replaced whole or
//! not at all; no secret is ever formatted. It refuses tokens without a key id, or with a header
//! that claims to be critical: there is none that it knows.

mod claims;
mod error;
mod key_file;
mod keys;
mod signing;

pub use claims::{Claims, Role};
pub use error::{Error, KeyError};
pub use keys::Keys;
pub use signing::SigningKey;
