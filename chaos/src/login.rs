//! Signs the tokens of devices and back ends, as a login service would.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tidemark_client::{AppError, TokenSource};
use tidemark_env::{Clock, SystemClock};
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::{DeviceId, UserId};

/// How long a token is good: longer than a test.
const TOKEN_VALID: Duration = Duration::from_secs(60 * 60);

/// Signs tokens for one caller.
pub struct Login {
    key: SigningKey,
    role: Role,
}

impl Login {
    /// For one device of a user, with the key in this file.
    pub fn new(key: &Path, user: &UserId, device: &DeviceId) -> Result<Self> {
        let role = Role::Device { user: user.clone(), device: Some(device.clone()) };
        Ok(Login { key: SigningKey::read(key)?, role })
    }

    /// For a back end, which may act for any user.
    pub fn service(key: &Path) -> Result<Self> {
        Ok(Login { key: SigningKey::read(key)?, role: Role::Service })
    }

    /// A new token.
    pub fn sign(&self) -> String {
        self.key.sign(&Claims::new(self.role.clone(), SystemClock::new().wall(), TOKEN_VALID))
    }
}

impl TokenSource for Login {
    async fn token(&self, _: bool) -> Result<String, AppError> {
        Ok(self.sign())
    }
}
