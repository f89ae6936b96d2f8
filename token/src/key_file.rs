//! One key's file: its id, its kind and its bytes. It refuses files too large to be a key, and
//! secrets too short to be one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use jsonwebtoken::Algorithm;

use crate::error::KeyError;

/// Bytes of a shared secret at least: as many as HS256 makes of it (RFC 7518, section 3.2).
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// Bytes of a file: a key of either kind takes below 200, with room for comments in a PEM.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The ending of a shared secret's file.
pub(crate) const SECRET: &str = "hs256";

/// Base64 for URLs, written without padding and read with or without it.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key's file, read. Deliberately without Debug.
pub(crate) struct KeyFile {
    /// The key's id: the file's stem.
    pub(crate) id: String,
    /// What the key is for; nothing in a token can change it.
    pub(crate) algorithm: Algorithm,
    /// The decoded secret, or the PEM as it is.
    pub(crate) content: Vec<u8>,
}

impl KeyFile {
    /// Reads the key at `path`; the ending of its name says which kind it is.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let (id, ending) = (path.file_stem(), path.extension());
        let id = id.and_then(|id| id.to_str()).ok_or_else(|| bad(path, "its name is not UTF-8"))?;
        let algorithm = match ending.and_then(|ending| ending.to_str()) {
            Some(SECRET) => Algorithm::HS256,
            Some("pem") => Algorithm::EdDSA,
            _ => return Err(bad(path, "its name ends neither with .hs256 nor with .pem")),
        };
        let mut content = read_bounded(path)?;
        if algorithm == Algorithm::HS256 {
            content = secret(&content).map_err(|reason| bad(path, reason))?;
        }
        Ok(KeyFile { id: id.to_owned(), algorithm, content })
    }
}

/// The error of a file that is no key.
pub(crate) fn bad(path: &Path, reason: &'static str) -> KeyError {
    KeyError::NotAKey { path: path.to_owned(), reason }
}

/// The error of a file that the system refuses.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KeyError {
    move |error| KeyError::Io { path: path.to_owned(), error }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KeyError> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(io(path))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(io(path))?;
    match content.len() as u64 {
        0..=FILE_BYTES_MAX => Ok(content),
        _ => Err(bad(path, "it is too large for a key")),
    }
}

fn secret(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let secret = BASE64URL.decode(text.trim_ascii()).map_err(|_| "it is not base64url")?;
    match secret.len() {
        0..SECRET_BYTES_MIN => Err("the secret has fewer than 32 bytes"),
        _ => Ok(secret),
    }
}
