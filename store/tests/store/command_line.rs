//! The real binary, up to where it would start a node.

use std::process::{Command, Output};

use tempfile::{NamedTempFile, TempDir};

/// What is printed on success, and what is complained about otherwise.
fn told(arguments: &[&str]) -> Result<String, String> {
    let run = Command::new(env!("CARGO_BIN_EXE_tidemark-store")).args(arguments).output();
    let Output { status, stdout, stderr } = run.unwrap();
    match status.success() {
        true => Ok(String::from_utf8(stdout).unwrap()),
        false => Err(String::from_utf8(stderr).unwrap()),
    }
}

#[test]
fn the_version_names_a_commit() {
    let version = told(&["--version"]).unwrap();
    let start = format!("tidemark-store {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&start) && version.ends_with(")\n"), "{version}");
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, "grpc = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    let printed = told(&["run", "--config", path, "--grpc", "[::1]:5", "--print-config"]);
    let config: toml::Table = printed.unwrap().parse().unwrap();
    assert_eq!(config["grpc"].as_str(), Some("[::1]:5"));
    assert_eq!(config["http"].as_str(), Some("127.0.0.1:2"));
    assert_eq!(config["data_dir"].as_str(), Some("data"));
    assert_eq!(config["raft"]["heartbeat_ms"].as_integer(), Some(200));
}

#[test]
fn a_bad_configuration_is_refused_by_its_key() {
    let refused = told(&["run", "--grpc", "0.0.0.0:7101", "--check-config"]).unwrap_err();
    assert!(refused.starts_with("tidemark-store: grpc: a loopback address"), "{refused}");
    let refused = told(&["run", "--config", "nowhere.toml"]).unwrap_err();
    assert!(refused.contains("nowhere.toml"), "{refused}");
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, "[disk]\nfree_bytes = 5\n").unwrap();
    let path = file.path().to_str().unwrap();
    let refused = told(&["run", "--config", path]).unwrap_err();
    assert!(refused.contains(path) && refused.contains("unknown field `free_bytes`"), "{refused}");
    assert_eq!(told(&["run", "--check-config"]).unwrap(), "");
}

#[test]
fn a_directory_that_is_not_there_cannot_be_looked_at_and_is_not_made() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let path = missing.to_str().unwrap();
    let refused = told(&["inspect", "--data-dir", path]).unwrap_err();
    let start = format!("tidemark-store: the data directory {path} has no identity");
    assert!(refused.starts_with(&start), "{refused}");
    assert!(!missing.exists());
}
