//! What an application gets from each vendor when it is registered: made anew for every simulator,
//! and written as files with a configuration that uses them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p256::SecretKey;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rsa::RsaPrivateKey;
use rsa::rand_core::{OsRng, RngCore};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Bits of the service account's key, as Google's are.
const RSA_BITS: usize = 2048;

/// One application's credentials with every service.
pub struct Credentials {
    /// Apple's team.
    pub team_id: String,
    /// The id of Apple's key.
    pub key_id: String,
    /// The application's bundle id.
    pub topic: String,
    pub(crate) apns: SecretKey,
    /// Google's project.
    pub project: String,
    /// The service account.
    pub client_email: String,
    fcm: OnceLock<RsaPrivateKey>,
    /// Microsoft's application.
    pub client_id: String,
    pub(crate) client_secret: String,
    /// BlackBerry's application.
    pub application_id: String,
    pub(crate) password: String,
    pub(crate) webhook: Vec<u8>,
    vapid: SecretKey,
    ca_pem: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    tls_key: Vec<u8>,
}

impl Credentials {
    /// New ones.
    pub fn new() -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With one name for both, OpenSSL takes the server's certificate for its own authority.
        authority.distinguished_name.push(DnType::CommonName, "tidemark-push-sim's authority");
        let authority_key = KeyPair::generate()?;
        let ca = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let tls_key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "tidemark-push-sim");
        let certificate = server.signed_by(&tls_key, &issuer)?;
        let mut webhook = vec![0; 32];
        OsRng.fill_bytes(&mut webhook);
        Ok(Credentials {
            team_id: "SIMTEAM001".to_owned(),
            key_id: "SIMKEY0001".to_owned(),
            topic: "org.example.sim".to_owned(),
            apns: SecretKey::random(&mut OsRng),
            project: "sim-project".to_owned(),
            client_email: "push@sim-project.iam.gserviceaccount.com".to_owned(),
            fcm: OnceLock::new(),
            client_id: "ms-app://s-1-15-2-1".to_owned(),
            client_secret: random_hex(),
            application_id: "1234-sim".to_owned(),
            password: random_hex(),
            webhook,
            vapid: SecretKey::random(&mut OsRng),
            ca_pem: ca.pem(),
            chain: vec![certificate.der().clone()],
            tls_key: tls_key.serialize_der(),
        })
    }

    /// Google's key takes a while to make: only who uses it waits for it.
    pub(crate) fn fcm(&self) -> &RsaPrivateKey {
        let make =
            || RsaPrivateKey::new(&mut OsRng, RSA_BITS).expect("the system gives randomness");
        self.fcm.get_or_init(make)
    }

    pub(crate) fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.tls_key.clone()))
    }

    /// The certificate of the simulator's authority, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Apple's `AuthKey_….p8`.
    pub fn apns_key(&self) -> Result<String> {
        Ok(self.apns.to_pkcs8_pem(LineEnding::LF)?.to_string())
    }

    /// The key by which an application server is known to Web Push services, in PEM.
    pub fn vapid_key(&self) -> Result<String> {
        Ok(self.vapid.to_pkcs8_pem(LineEnding::LF)?.to_string())
    }

    /// Its public half, in base64url, as browsers are given it.
    pub fn vapid_public(&self) -> String {
        use p256::elliptic_curve::sec1::ToEncodedPoint;
        URL_SAFE_NO_PAD.encode(self.vapid.public_key().to_encoded_point(false).as_bytes())
    }

    /// Google's key of the service account, JSON.
    pub fn service_account(&self, http: SocketAddr) -> Result<String> {
        let key = self.fcm().to_pkcs8_pem(LineEnding::LF)?;
        let account = serde_json::json!({
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": "sim-key",
            "private_key": key.as_str(),
            "client_email": self.client_email,
            "token_uri": token_uri(http),
        });
        Ok(account.to_string())
    }

    /// The webhook's secret, as it stands in a file.
    pub fn webhook_secret(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.webhook))
    }

    /// Writes all of it into a folder, with a configuration that uses it: `push.toml`.
    pub fn write(&self, folder: &Path, apns: SocketAddr, http: SocketAddr) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let files = [
            ("apns.p8", self.apns_key()?),
            ("ca.pem", self.ca_pem.clone()),
            ("fcm.json", self.service_account(http)?),
            ("wns.secret", self.client_secret.clone()),
            ("bb.password", self.password.clone()),
            ("webhook.secrets", self.webhook_secret()),
            ("vapid.pem", self.vapid_key()?),
            ("push.toml", self.config(folder, apns, http)),
        ];
        for (name, content) in files {
            let path = folder.join(name);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn config(&self, folder: &Path, apns: SocketAddr, http: SocketAddr) -> String {
        let file = |name: &str| format!("{:?}", folder.join(name).display().to_string());
        let Credentials { team_id, key_id, topic, client_id, application_id, .. } = self;
        format!(
            "[providers.apns]\nkind = \"apns\"\nendpoint = \"https://{apns}\"\nkey = {p8}\n\
             key_id = \"{key_id}\"\nteam_id = \"{team_id}\"\ntopic = \"{topic}\"\n\
             tls = {{ ca = {ca} }}\n\n\
             [providers.fcm]\nkind = \"fcm\"\nendpoint = \"http://{http}\"\n\
             service_account = {fcm}\n\n\
             [providers.wns]\nkind = \"wns\"\ntoken_url = \"http://{http}/wns/token\"\n\
             client_id = \"{client_id}\"\nclient_secret = {wns}\norigins = [\"http://{http}\"]\n\n\
             [providers.webpush]\nkind = \"webpush\"\nvapid_key = {vapid}\n\
             subject = \"mailto:push@example.org\"\norigins = [\"http://{http}\"]\n\n\
             [providers.mpns]\nkind = \"mpns\"\norigins = [\"http://{http}\"]\n\n\
             [providers.bbpush]\nkind = \"bbpush\"\nendpoint = \"http://{http}/mss/PD_pushRequest\"\n\
             application_id = \"{application_id}\"\npassword = {bb}\n\n\
             [providers.webhook]\nkind = \"webhook\"\nendpoint = \"http://{http}/webhook\"\n\
             secrets = {webhook}\n",
            p8 = file("apns.p8"),
            ca = file("ca.pem"),
            fcm = file("fcm.json"),
            wns = file("wns.secret"),
            vapid = file("vapid.pem"),
            bb = file("bb.password"),
            webhook = file("webhook.secrets"),
        )
    }
}

/// Where Google's tokens are got.
pub(crate) fn token_uri(http: SocketAddr) -> String {
    format!("http://{http}/fcm/token")
}

/// 32 hex digits that nobody guesses.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
