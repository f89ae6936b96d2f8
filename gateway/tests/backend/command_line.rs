//! The real binary, up to where it would need a store.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidemark-gateway")).args(arguments).output().unwrap()
}

/// What is printed on success, and what is complained about otherwise.
fn told(arguments: &[&str]) -> Result<String, String> {
    let Output { status, stdout, stderr } = run(arguments);
    match status.success() {
        true => Ok(String::from_utf8(stdout).unwrap()),
        false => Err(String::from_utf8(stderr).unwrap()),
    }
}

#[test]
fn the_version_names_a_commit() {
    let version = told(&["--version"]).unwrap();
    let start = format!("tidemark-gateway {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&start) && version.ends_with(")\n"), "{version}");
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "grpc = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    let stores = "127.0.0.1:3,127.0.0.1:4";
    let printed =
        told(&["run", "--config", path, "--grpc", "[::1]:5", "--store", stores, "--print-config"]);
    let config: toml::Table = printed.unwrap().parse().unwrap();
    assert_eq!(config["grpc"].as_str(), Some("[::1]:5"));
    assert_eq!(config["http"].as_str(), Some("127.0.0.1:2"));
    assert_eq!(config["keys"].as_str(), Some("keys"));
    assert_eq!(config["store"]["endpoints"].as_array().unwrap().len(), 2);
}

#[test]
fn a_bad_configuration_is_refused_by_its_key() {
    let refused = told(&["run", "--grpc", "0.0.0.0:7301", "--check-config"]).unwrap_err();
    assert!(refused.starts_with("tidemark-gateway: grpc: a loopback address"), "{refused}");
    let refused = told(&["run", "--config", "nowhere.toml"]).unwrap_err();
    assert!(refused.contains("nowhere.toml"), "{refused}");
    assert!(told(&["run", "--check-config"]).is_ok());
}

#[test]
fn without_a_store_it_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[store]\ndeadline_ms = 1\n").unwrap();
    let path = file.path().to_str().unwrap();
    let any = "127.0.0.1:0";
    // Port 1 is nobody's.
    let store = "127.0.0.1:1";
    let refused = told(&["run", "--config", path, "--grpc", any, "--http", any, "--store", store]);
    let refused = refused.unwrap_err();
    assert!(refused.contains("the store is unavailable"), "{refused}");
}
