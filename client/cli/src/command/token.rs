//! `token make` and `token key`: tokens and secrets, made here without asking anybody.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use tidemark_env::{Clock, SystemClock, SystemRng};
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::{DeviceId, UserId};

use crate::arguments::{Connection, RoleName, Tokens};
use crate::cluster_file::ClusterFile;
use crate::command::here;
use crate::error::Error;
use crate::output::Output;
use crate::target::signing_key;

/// Makes and prints.
pub(crate) fn run(command: Tokens, connection: &Connection, output: Output) -> Result<(), Error> {
    match command {
        Tokens::Make { role, user, device, valid } => {
            let key = signing_key(connection, ClusterFile::find(&here()?)?.as_ref())?;
            let role = checked(role, user, device)?;
            let claims = Claims::new(role, SystemClock::new().wall(), valid);
            let made = Made { token: key.sign(&claims), expires_ms: claims.expires.get() };
            Ok(output.print(&made)?)
        }
        Tokens::Key { file } => {
            let made = SigningKey::generate_hs256(&file, &SystemRng);
            made.map_err(|error| Error::Usage(error.to_string()))?;
            Ok(output.print(&Key { file })?)
        }
    }
}

fn checked(role: RoleName, user: Option<UserId>, device: Option<DeviceId>) -> Result<Role, Error> {
    match (role, user) {
        (RoleName::Device, Some(user)) => Ok(Role::Device { user, device }),
        (RoleName::Service, None) => Ok(Role::Service),
        (RoleName::Admin, None) => Ok(Role::Admin),
        // Such a token would look narrower than it is.
        (RoleName::Service | RoleName::Admin, Some(_)) | (RoleName::Device, None) => {
            Err(Error::Usage("--user belongs to --role device, and to no other".to_owned()))
        }
    }
}

#[derive(Serialize)]
struct Made {
    token: String,
    expires_ms: u64,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.token)
    }
}

#[derive(Serialize)]
struct Key {
    file: PathBuf,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.display().fmt(f)
    }
}
