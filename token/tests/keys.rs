//! Keys in files: what they verify, what they refuse, and what a reload keeps.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tempfile::TempDir;
use tidemark_env::{ManualClock, SeededRng};
use tidemark_token::{Claims, Error, KeyError, Keys, Role, SigningKey};
use tidemark_types::{ErrorCode, UnixMs, UserId};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----\n";
/// The pair of RFC 8410, section 10: known to everybody.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

/// 32 bytes, which is the least.
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

const NOW: UnixMs = UnixMs::new(1_764_000_000_000);

struct Rig {
    folder: TempDir,
    clock: Arc<ManualClock>,
}

impl Rig {
    fn new(files: &[(&str, &str)]) -> Rig {
        let rig = Rig {
            folder: TempDir::new().expect("a folder"),
            clock: Arc::new(ManualClock::at(NOW)),
        };
        files.iter().for_each(|(name, content)| rig.put(name, content));
        rig
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        fs::write(path, content).expect("written");
    }

    fn keys(&self) -> Result<Keys, KeyError> {
        Keys::read(self.folder.path(), self.clock.clone())
    }

    fn signer(&self, name: &str) -> SigningKey {
        SigningKey::read(self.path(name)).expect("a key")
    }
}

fn claims() -> Claims {
    let user = UserId::new("alice").expect("legal");
    Claims::new(Role::Device { user, device: None }, NOW, Duration::from_secs(60))
}

fn read_error(name: &str, content: &str) -> String {
    Rig::new(&[(name, content)]).keys().expect_err("it is no key").to_string()
}

#[test]
fn each_kind_of_key_verifies_what_it_signed() {
    let public = Rig::new(&[("ours.pem", PUBLIC), ("local.hs256", SECRET)]);
    let private = Rig::new(&[("ours.pem", PRIVATE), ("local.hs256", SECRET)]);
    let keys = public.keys().expect("two keys");
    assert_eq!(keys.ids(), ["local", "ours"]);
    for name in ["ours.pem", "local.hs256"] {
        let token = private.signer(name).sign(&claims());
        assert_eq!(keys.verify(&token), Ok(claims()), "{name}");
    }
}

#[test]
fn one_file_is_a_set_too() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let keys = Keys::read(rig.path("local.hs256"), rig.clock.clone()).expect("a key");
    assert!(keys.verify(&rig.signer("local.hs256").sign(&claims())).is_ok());
}

#[test]
fn a_token_of_another_key_does_not_verify() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let keys = rig.keys().expect("a key");
    let other = Rig::new(&[("local.hs256", &SECRET.replace('A', "B"))]);
    let token = other.signer("local.hs256").sign(&claims());
    assert_eq!(keys.verify(&token), Err(Error::Unverified));
    let other = Rig::new(&[("else.hs256", SECRET)]);
    let token = other.signer("else.hs256").sign(&claims());
    assert_eq!(keys.verify(&token), Err(Error::UnknownKey("else".to_owned())));
}

/// The attack that gave JWT its name: the public key, which everybody has, used as a secret.
#[test]
fn the_algorithm_is_the_keys_not_the_tokens() {
    let rig = Rig::new(&[("ours.pem", PUBLIC)]);
    let keys = rig.keys().expect("a key");
    let der = &[0x19, 0xbf, 0x44, 0x09][..];
    for secret in [PUBLIC.as_bytes(), PUBLIC.trim().as_bytes(), der] {
        let header = Header { kid: Some("ours".to_owned()), ..Header::new(Algorithm::HS256) };
        let forged = encode(&header, &claims(), &EncodingKey::from_secret(secret)).expect("a JWT");
        assert_eq!(keys.verify(&forged), Err(Error::Unverified));
    }
    // {"alg":"none","kid":"ours"}
    let payload = forged_payload();
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoib3VycyJ9.{payload}.");
    assert!(matches!(keys.verify(&none), Err(Error::Malformed(_))));
}

fn forged_payload() -> String {
    let key = EncodingKey::from_secret(b"x");
    let token = encode(&Header::new(Algorithm::HS256), &claims(), &key).expect("a JWT");
    token.split('.').nth(1).expect("three parts").to_owned()
}

#[test]
fn a_changed_token_does_not_verify() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let keys = rig.keys().expect("a key");
    let token = rig.signer("local.hs256").sign(&claims());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        let refused = keys.verify(&changed).expect_err("it was changed");
        assert_eq!(refused.code(), ErrorCode::Unauthenticated, "{at}");
    }
}

#[test]
fn a_token_ends_by_our_clock_and_a_small_leeway() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let keys = rig.keys().expect("a key");
    let token = rig.signer("local.hs256").sign(&claims());
    rig.clock.advance(Duration::from_secs(70));
    assert!(keys.verify(&token).is_ok());
    rig.clock.advance(Duration::from_millis(1));
    let expired = keys.verify(&token).expect_err("over");
    assert_eq!(expired, Error::Expired { at: NOW.plus(Duration::from_secs(60)) });
    assert_eq!(expired.code(), ErrorCode::TokenExpired);
}

#[test]
fn what_is_no_token_is_unauthenticated() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let keys = rig.keys().expect("a key");
    let secret: Vec<u8> = (0..32).collect();
    let made = |header, claims| encode(&header, &claims, &EncodingKey::from_secret(&secret));
    let named = || Header { kid: Some("local".to_owned()), ..Header::new(Algorithm::HS256) };
    let good = json!({"role": "admin", "exp": NOW.get() / 1000});
    assert!(keys.verify(&made(named(), good.clone()).expect("a JWT")).is_ok());
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..named() };
    let long = json!({"role": "admin", "exp": 1, "x": "x".repeat(9999)});
    for refused in [
        String::new(),
        "a.b.c".to_owned(),
        made(Header::new(Algorithm::HS256), good.clone()).expect("a JWT"),
        made(critical, good).expect("a JWT"),
        made(named(), json!({"role": "device", "exp": 1})).expect("a JWT"),
        made(named(), json!({"role": "admin"})).expect("a JWT"),
        made(named(), long).expect("a JWT"),
    ] {
        let error = keys.verify(&refused).expect_err("no token");
        assert_eq!(error.code(), ErrorCode::Unauthenticated, "{refused}");
    }
}

#[test]
fn a_rotation_keeps_both_keys_until_the_old_one_goes() {
    let rig = Rig::new(&[("2026a.hs256", SECRET)]);
    let keys = rig.keys().expect("a key");
    let old = rig.signer("2026a.hs256").sign(&claims());
    assert!(!keys.reload().expect("the same key"));
    SigningKey::generate_hs256(rig.path("2026b.hs256"), &SeededRng::new(1)).expect("a new key");
    assert!(keys.reload().expect("two keys"));
    let new = rig.signer("2026b.hs256").sign(&claims());
    assert!(keys.verify(&old).is_ok() && keys.verify(&new).is_ok());
    fs::remove_file(rig.path("2026a.hs256")).expect("removed");
    assert!(keys.reload().expect("one key"));
    assert!(keys.verify(&old).is_err() && keys.verify(&new).is_ok());
}

#[test]
fn a_reload_that_fails_leaves_the_old_keys() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let keys = rig.keys().expect("a key");
    let token = rig.signer("local.hs256").sign(&claims());
    rig.put("next.hs256", "short");
    assert!(keys.reload().is_err());
    assert!(keys.verify(&token).is_ok());
    fs::remove_file(rig.path("next.hs256")).expect("removed");
    fs::remove_file(rig.path("local.hs256")).expect("removed");
    assert!(matches!(keys.reload(), Err(KeyError::NoKey(_))));
    assert!(keys.verify(&token).is_ok());
}

#[test]
fn what_is_no_key_is_refused() {
    assert!(read_error("a.hs256", "AAAA").ends_with("the secret has fewer than 32 bytes"));
    assert!(read_error("a.hs256", "not base64!").ends_with("it is not base64url"));
    assert!(read_error("a.hs256", &"A".repeat(20_000)).ends_with("too large for a key"));
    assert!(read_error("a.key", SECRET).contains("ends neither with"));
    assert!(read_error("a.pem", PRIVATE).contains("not an Ed25519 public key"));
    assert!(read_error("a.pem", SECRET).contains("not an Ed25519 public key"));
    // 32 bytes that are no point on the curve.
    let odd = format!("{BEGIN}MCowBQYDK2VwAyEAAg{}=\n-----END PUBLIC KEY-----\n", "A".repeat(41));
    assert!(read_error("a.pem", &odd).contains("not an Ed25519 public key"));
    let certificate = PUBLIC.replace("PUBLIC KEY", "CERTIFICATE");
    assert!(read_error("a.pem", &certificate).contains("not an Ed25519 public key"));
    assert!(SigningKey::read(Rig::new(&[("a.pem", PUBLIC)]).path("a.pem")).is_err());
    let twice = Rig::new(&[("a.pem", PUBLIC), ("a.hs256", SECRET)]);
    assert!(matches!(twice.keys(), Err(KeyError::Twice { .. })));
    assert!(matches!(Rig::new(&[]).keys(), Err(KeyError::NoKey(_))));
    let many: Vec<String> = (0..65).map(|at| format!("{at}.hs256")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), SECRET)).collect();
    assert!(matches!(Rig::new(&many).keys(), Err(KeyError::TooMany { .. })));
}

#[test]
fn padding_spaces_hidden_files_and_folders_are_no_fault() {
    let padded = format!("  {SECRET}=\n");
    let rig = Rig::new(&[("local.hs256", &padded), (".swap", "x"), ("lost+found/x", "x")]);
    let token = Rig::new(&[("local.hs256", SECRET)]).signer("local.hs256").sign(&claims());
    assert!(rig.keys().expect("one key").verify(&token).is_ok());
}

#[test]
fn a_generated_secret_is_new_and_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new(&[]);
    let make = |name: &str| SigningKey::generate_hs256(rig.path(name), &SeededRng::new(1));
    make("local.hs256").expect("a key");
    assert!(make("local.hs256").is_err(), "it exists");
    assert!(make("local.pem").is_err(), "another kind");
    let mode = fs::metadata(rig.path("local.hs256")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_secret_is_formatted() {
    let rig = Rig::new(&[("local.hs256", SECRET)]);
    let shown = format!("{:?} {:?}", rig.keys().expect("a key"), rig.signer("local.hs256"));
    assert!(shown.contains("local"), "{shown}");
    assert!(!shown.contains("AAEC") && !shown.contains("0, 1, 2"), "{shown}");
    let error = read_error("local.hs256", "c2VjcmV0");
    assert!(!error.contains("c2VjcmV0"), "{error}");
    assert!(Path::new(&error.split(':').next().expect("a path")).ends_with("local.hs256"));
}
