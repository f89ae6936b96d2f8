//! The key by which tokens are made.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use tidemark_env::Rng;

use crate::claims::Claims;
use crate::error::KeyError;
use crate::key_file::{BASE64URL, KeyFile, SECRET, SECRET_BYTES_MIN, bad, io};

/// A key that makes tokens. Its Debug shows no secret: the library redacts it.
#[derive(Debug)]
pub struct SigningKey {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// Reads a key: `<id>.hs256`, a secret in base64url, or `<id>.pem`, an Ed25519 private key
    /// (PKCS #8, without a passphrase).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let file = KeyFile::read(path)?;
        let key = match file.algorithm {
            Algorithm::HS256 => EncodingKey::from_secret(&file.content),
            _ => private_key(&file.content).ok_or_else(|| {
                bad(path, "it is not an Ed25519 private key in PEM (-----BEGIN PRIVATE KEY-----)")
            })?,
        };
        Ok(SigningKey { id: file.id, algorithm: file.algorithm, key })
    }

    /// Makes a secret in a new file, which only its owner may read; its name must end with
    /// `.hs256`. A file that exists is left alone.
    pub fn generate_hs256(path: impl AsRef<Path>, rng: &dyn Rng) -> Result<Self, KeyError> {
        let path = path.as_ref();
        if path.extension().is_none_or(|ending| ending != SECRET) {
            return Err(bad(path, "the name of a secret's file ends with .hs256"));
        }
        let mut secret = [0; SECRET_BYTES_MIN];
        rng.fill(&mut secret);
        let mut file = OpenOptions::new();
        file.write(true).create_new(true).mode(0o600);
        let mut file = file.open(path).map_err(io(path))?;
        writeln!(file, "{}", BASE64URL.encode(secret)).map_err(io(path))?;
        SigningKey::read(path)
    }

    /// The token that says this. The times in it are cut to whole seconds.
    pub fn sign(&self, claims: &Claims) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).expect("the key has made a signature before")
    }
}

/// The key in a PEM, after a try: what cannot sign is noticed here.
fn private_key(pem: &[u8]) -> Option<EncodingKey> {
    let key = EncodingKey::from_ed_pem(pem).ok()?;
    let usable = jsonwebtoken::crypto::sign(b"", &key, Algorithm::EdDSA).is_ok();
    usable.then_some(key)
}
