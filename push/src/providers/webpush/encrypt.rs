//! Encryption for one device (RFC 8291 over RFC 8188, `aes128gcm`, one record).
//!
//! ```text
//!  salt 16 | record size 4 | key length 1 | our key of this message 65 | ciphertext and its tag
//! ```

use aes_gcm::aead::Aead;
use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
use hkdf::Hkdf;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{PublicKey, SecretKey, ecdh};
use sha2::Sha256;
use tidemark_env::Rng;

/// Bytes of a record: the largest body that a push service has to take.
const RECORD: u32 = 4096;

/// Ends the text of a last record; zeros may follow.
const LAST: u8 = 2;

/// Ends the text and fills it up to `length`, which is more than it has.
pub(super) fn pad(text: &mut Vec<u8>, length: usize) {
    text.push(LAST);
    text.resize(length, 0);
}

/// Encrypts a text that was padded, with a key and a salt of its own.
pub(super) fn encrypt(padded: &[u8], to: &PublicKey, auth: &[u8; 16], rng: &dyn Rng) -> Vec<u8> {
    let mut salt = [0; 16];
    rng.fill(&mut salt);
    encrypt_with(padded, to, auth, &secret(rng), &salt)
}

/// A key from random bytes; those that are none (below one in four thousand million) are passed over.
fn secret(rng: &dyn Rng) -> SecretKey {
    loop {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        if let Ok(secret) = SecretKey::from_slice(&bytes) {
            return secret;
        }
    }
}

fn encrypt_with(
    padded: &[u8],
    to: &PublicKey,
    auth: &[u8; 16],
    from: &SecretKey,
    salt: &[u8; 16],
) -> Vec<u8> {
    let (ours, theirs) = (from.public_key().to_encoded_point(false), to.to_encoded_point(false));
    let shared = ecdh::diffie_hellman(from.to_nonzero_scalar(), to.as_affine());
    let info = [b"WebPush: info\0", theirs.as_bytes(), ours.as_bytes()].concat();
    let input: [u8; 32] = derive(auth, shared.raw_secret_bytes(), &info);
    let key: [u8; 16] = derive(salt, &input, b"Content-Encoding: aes128gcm\0");
    let nonce: [u8; 12] = derive(salt, &input, b"Content-Encoding: nonce\0");
    let cipher = Aes128Gcm::new_from_slice(&key).expect("a key has 16 bytes");
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce), padded);
    let sealed = sealed.expect("a hint is far below the limit of the cipher");
    let key_bytes = u8::try_from(ours.len()).expect("a point has 65 bytes");
    [&salt[..], &RECORD.to_be_bytes(), &[key_bytes], ours.as_bytes(), &sealed].concat()
}

/// HKDF with SHA-256.
fn derive<const N: usize>(salt: &[u8], input: &[u8], info: &[u8]) -> [u8; N] {
    let mut output = [0; N];
    let hkdf = Hkdf::<Sha256>::new(Some(salt), input);
    hkdf.expand(info, &mut output).expect("it gives more than a key's bytes");
    output
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use tidemark_env::SeededRng;

    use super::super::BASE64URL;
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        let bytes = BASE64URL.decode(text).expect("base64url");
        bytes.try_into().expect("that many bytes")
    }

    #[test]
    fn it_is_what_the_rfc_computes() {
        // RFC 8291, appendix A.
        let to: [u8; 65] = bytes(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        );
        let to = PublicKey::from_sec1_bytes(&to).expect("a point");
        let from: [u8; 32] = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let from = SecretKey::from_slice(&from).expect("a key");
        let mut text = b"When I grow up, I want to be a watermelon".to_vec();
        let length = text.len() + 1;
        pad(&mut text, length);
        let auth = bytes("BTBZMqHH6r4Tts7J_aSIgg");
        let sealed = encrypt_with(&text, &to, &auth, &from, &bytes("DGv6ra1nlYgDCS1FRnbzlw"));
        assert_eq!(
            BASE64URL.encode(sealed),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLoc\
             InmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLV\
             WGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn every_message_has_a_key_of_its_own_and_one_length() {
        let rng = SeededRng::new(1);
        let to = secret(&rng).public_key();
        let sealed = |text: &[u8]| {
            let mut text = text.to_vec();
            pad(&mut text, 128);
            encrypt(&text, &to, &[7; 16], &rng)
        };
        let (one, other) = (sealed(b"short"), sealed(b"somewhat longer"));
        assert_eq!((one.len(), other.len()), (16 + 4 + 1 + 65 + 128 + 16, one.len()));
        assert_ne!(one[..86], other[..86]);
        assert!(one.len() < RECORD as usize);
    }
}
