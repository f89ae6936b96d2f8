//! A new cluster's settings as a person writes them: TOML, with durations as `30d` or `10s`.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tidemark_process::ConfigError;
use tidemark_store_core::value::Settings;

/// Reads a file; what it leaves out has its default.
///
/// # Errors
/// If it cannot be read, names a key that does not exist, or contradicts itself.
pub fn read(path: &Path) -> Result<Settings, ConfigError> {
    let settings = Settings::from(tidemark_process::load::<File>(path)?);
    settings.check().map_err(|reason| ConfigError::Invalid { key: "settings", reason })?;
    Ok(settings)
}

macro_rules! file {
    ($($name:ident: $type:ty = $with:literal),* $(,)?) => {
        /// The keys of the file, which are the names of the settings.
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct File {
            $(#[serde(deserialize_with = $with)] $name: Option<$type>,)*
        }

        impl From<File> for Settings {
            fn from(file: File) -> Settings {
                let default = Settings::default();
                Settings { $($name: file.$name.unwrap_or(default.$name)),* }
            }
        }
    };
}

file! {
    session_idle: Duration = "duration",
    dedup_window: Duration = "duration",
    allocate_window: Duration = "duration",
    mailbox_entries_max: u32 = "number",
    keep: Duration = "duration",
    hard_keep: Duration = "duration",
    eligible: Duration = "duration",
    device_expiry: Duration = "duration",
    devices_max: u32 = "number",
    group_members_max: u32 = "number",
    recall_within: Duration = "duration",
    edit_within: Duration = "duration",
    push_after: Duration = "duration",
    push_every: Duration = "duration",
    feed_records_max: u32 = "number",
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    u32::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings.toml");
        std::fs::write(&path, text).expect("written");
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = parsed("keep = \"7d\"\ndevices_max = 5\n").expect("legal");
        let keep = Duration::from_secs(7 * 24 * 60 * 60);
        assert_eq!(settings, Settings { keep, devices_max: 5, ..Settings::default() });
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["keeep = \"7d\"", "keep = \"soon\"", "keep = \"800d\"", "devices_max = 0"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
