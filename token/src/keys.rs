//! The keys by which tokens are verified: a file, or a folder with several for rotation.
//!
//! To rotate: put the new public key (or secret) beside the old one everywhere, sign with the new
//! one, remove the old one when its last token has expired. Whoever verifies calls
//! [`Keys::reload`] now and then; the files are few and small. Hidden files and folders are passed
//! over, since mounted volumes have some; anything else that is no key is refused, since a key
//! with a misspelt name would be missed only when it is needed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use parking_lot::RwLock;
use tidemark_env::Clock;

use crate::claims::Claims;
use crate::error::{Error, KeyError};
use crate::key_file::{KeyFile, bad, io};

/// Files in a folder of keys: a rotation of each kind takes two, and hand-overs a few more.
const FILES_MAX: usize = 64;

/// Bytes of a token: ours take 200 to 400, and other issuers add claims of their own.
const TOKEN_BYTES_MAX: usize = 4096;

/// How long after its end a token is still taken, for clocks that differ a little. Clusters need
/// synchronised clocks anyway; a longer one would only stretch every token's life.
const LEEWAY: Duration = Duration::from_secs(10);

/// Bytes of an Ed25519 public key (RFC 8032).
const ED25519_BYTES: usize = 32;

/// A set of verifying keys, which can be reloaded while it is in use.
pub struct Keys {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Set>>,
}

/// The keys by their id.
type Set = BTreeMap<String, Key>;

struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keys {
    /// Reads the key at `path`, or all keys in that folder; at least one.
    pub fn read(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, KeyError> {
        let path = path.into();
        let current = RwLock::new(Arc::new(read_set(&path)?));
        Ok(Keys { path, clock, current })
    }

    /// Reads the keys anew: `true` if they have changed. On an error the old ones stay.
    pub fn reload(&self) -> Result<bool, KeyError> {
        let set = read_set(&self.path)?;
        let mut current = self.current.write();
        let changed = **current != set;
        *current = Arc::new(set);
        Ok(changed)
    }

    /// The ids of the keys, in order.
    pub fn ids(&self) -> Vec<String> {
        self.current.read().keys().cloned().collect()
    }

    /// What the token says, if one of these keys made it and it has not expired.
    pub fn verify(&self, token: &str) -> Result<Claims, Error> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Error::Malformed(format!("it has more than {TOKEN_BYTES_MAX} bytes")));
        }
        let header = decode_header(token).map_err(|error| Error::Malformed(error.to_string()))?;
        if header.crit.is_some() {
            return Err(Error::Malformed("it has a critical header (`crit`)".to_owned()));
        }
        let id = header.kid.ok_or(Error::NoKeyId)?;
        let set = self.current.read().clone();
        let claims = set.get(&id).ok_or(Error::UnknownKey(id))?.verify(token)?;
        match self.clock.wall() > claims.expires.plus(LEEWAY) {
            true => Err(Error::Expired { at: claims.expires }),
            false => Ok(claims),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("path", &self.path).field("ids", &self.ids()).finish()
    }
}

impl Key {
    fn new(path: &Path, file: &KeyFile) -> Result<Self, KeyError> {
        let key = match file.algorithm {
            Algorithm::HS256 => DecodingKey::from_secret(&file.content),
            _ => public_key(&file.content).ok_or_else(|| {
                bad(path, "it is not an Ed25519 public key in PEM (-----BEGIN PUBLIC KEY-----)")
            })?,
        };
        Ok(Key { algorithm: file.algorithm, key })
    }

    /// Checks who made the token, and reads it. Its time is judged by whoever has the clock.
    fn verify(&self, token: &str) -> Result<Claims, Error> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        match decode(token, &self.key, &validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Error::Unverified,
                _ => Error::Malformed(error.to_string()),
            }),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        let bytes = |key: &Key| key.key.try_get_as_bytes().map(<[u8]>::to_vec).ok();
        self.algorithm == other.algorithm && bytes(self) == bytes(other)
    }
}

/// The key in a PEM. One that is no point on the curve is noticed here, not at the first token.
fn public_key(pem: &[u8]) -> Option<DecodingKey> {
    // Certificates pass the library's parser as well, with whatever bits come first in them.
    let label = b"-----BEGIN PUBLIC KEY-----";
    pem.windows(label.len()).find(|part| part == label)?;
    let key = DecodingKey::from_ed_pem(pem).ok()?;
    let sized = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == ED25519_BYTES);
    let usable = sized && jsonwebtoken::crypto::verify("", b"", &key, Algorithm::EdDSA).is_ok();
    usable.then_some(key)
}

fn read_set(path: &Path) -> Result<Set, KeyError> {
    let mut set = Set::new();
    for path in files(path)? {
        let file = KeyFile::read(&path)?;
        let key = Key::new(&path, &file)?;
        if set.insert(file.id.clone(), key).is_some() {
            return Err(KeyError::Twice { path, id: file.id });
        }
    }
    if set.is_empty() { Err(KeyError::NoKey(path.to_owned())) } else { Ok(set) }
}

/// The files of a set, in the order of their names so that errors are the same each time.
fn files(path: &Path) -> Result<Vec<PathBuf>, KeyError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(io(path))? {
        let entry = entry.map_err(io(path))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden || entry.path().is_dir() {
            continue;
        }
        if files.len() == FILES_MAX {
            return Err(KeyError::TooMany { path: path.to_owned(), max: FILES_MAX });
        }
        files.push(entry.path());
    }
    files.sort();
    Ok(files)
}
