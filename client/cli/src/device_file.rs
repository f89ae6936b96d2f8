//! Where the device of `listen` keeps its cursor between runs: one file for each user and device.
//!
//! ```text
//!   a local cluster:  .tidemark/devices/<user>-<device>.redb, beside its cluster.json
//!   else:             $XDG_STATE_HOME/tidemark/<gateway>/<user>-<device>.redb
//! ```
//!
//! Elsewhere the cluster's id is not known before the first answer, so `<gateway>`, the first by name,
//! stands for it. Should another cluster come to serve that address, the device is refused, since it
//! remembers the id.
//!
//! Invariant: two devices never share a file, whatever their names hold.

use std::ffi::OsString;
use std::path::PathBuf;

use tidemark_types::{DeviceId, UserId};

use crate::error::Error;
use crate::target::Target;

/// The file of a user's device in this cluster.
pub(crate) fn path(target: &Target, user: &UserId, device: &DeviceId) -> Result<PathBuf, Error> {
    let folder = match &target.folder {
        Some(folder) => folder.join("devices"),
        None => {
            let state = state(std::env::var_os("XDG_STATE_HOME"), std::env::home_dir())?;
            let gateway = target.gateways.iter().min();
            state.join(escaped(gateway.expect("a target has at least one")))
        }
    };
    let (user, device) = (escaped(&user.to_string()), escaped(&device.to_string()));
    Ok(folder.join(format!("{user}-{device}.redb")))
}

/// Our folder among those for state: a relative XDG_STATE_HOME counts as none.
fn state(given: Option<OsString>, home: Option<PathBuf>) -> Result<PathBuf, Error> {
    let given = given.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state"));
    let state = given.or(home).ok_or_else(|| {
        Error::Usage("there is no folder to keep a device in: set XDG_STATE_HOME".to_owned())
    })?;
    Ok(state.join("tidemark"))
}

/// A name as a part of a file's: one of its own, without what separates parts.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            c if c.is_alphanumeric() || c == '_' => escaped.push(c),
            // Not in front, where they would hide the file or lead out of the folder.
            '.' | ':' if !escaped.is_empty() => escaped.push(c),
            c => escaped.push_str(&format!("%{:X}_", u32::from(c))),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_devices_share_a_file() {
        assert_eq!(escaped("zoë_1.x"), "zoë_1.x");
        assert_eq!(escaped("../a-b%"), "%2E_.%2F_a%2D_b%25_");
        assert_eq!(escaped("127.0.0.1:7301"), "127.0.0.1:7301");
    }

    #[test]
    fn the_state_folder_is_absolute() {
        let state = |given: Option<&str>, home: Option<&str>| {
            state(given.map(OsString::from), home.map(PathBuf::from)).ok()
        };
        assert_eq!(state(Some("/s"), Some("/h")), Some(PathBuf::from("/s/tidemark")));
        let home = Some(PathBuf::from("/h/.local/state/tidemark"));
        assert_eq!(state(None, Some("/h")), home);
        assert_eq!(state(Some("s"), Some("/h")), home);
        assert_eq!(state(None, None), None);
    }
}
