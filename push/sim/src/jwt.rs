//! JWTs, taken apart by hand: the senders under test make theirs with a library, and a mistake of it
//! must not be forgiven here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use rsa::RsaPublicKey;
use serde_json::Value;
use sha2::Sha256;

/// A token whose signature has not been looked at.
pub(crate) struct Jwt<'a> {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    pub(crate) fn parse(token: &'a str) -> Option<Jwt<'a>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Jwt {
            header: json(header)?,
            claims: json(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Was it signed by this P-256 key, as it says (RFC 7518, section 3.4)?
    pub(crate) fn is_es256(&self, key: &VerifyingKey) -> bool {
        let signature = Signature::from_slice(&self.signature);
        let verified = signature.is_ok_and(|s| key.verify(self.signed.as_bytes(), &s).is_ok());
        self.header["alg"] == "ES256" && verified
    }

    /// Was it signed by this RSA key, as it says (RFC 7518, section 3.3)?
    pub(crate) fn is_rs256(&self, key: RsaPublicKey) -> bool {
        let key = rsa::pkcs1v15::VerifyingKey::<Sha256>::new(key);
        let signature = rsa::pkcs1v15::Signature::try_from(&self.signature[..]);
        let verified = signature.is_ok_and(|s| key.verify(self.signed.as_bytes(), &s).is_ok());
        self.header["alg"] == "RS256" && verified
    }
}
