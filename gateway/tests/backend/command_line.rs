//! The real binary, up to where it needs a store.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tidemark_env::SeededRng;
use tidemark_token::SigningKey;

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
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[limits]\nconections_max = 5\n").unwrap();
    let path = file.path().to_str().unwrap();
    let refused = told(&["run", "--config", path]).unwrap_err();
    assert!(
        refused.contains(path) && refused.contains("unknown field `conections_max`"),
        "{refused}"
    );
    let refused = told(&["run", "--cluster", "mine"]).unwrap_err();
    assert!(refused.contains("--cluster"), "{refused}");
    assert!(told(&["run", "--check-config"]).is_ok());
}

/// A gateway's process that waits for its store; killed when a test ends.
struct Waiting(Child);

impl Waiting {
    /// With a key, and a port that is nobody's for a store.
    fn start(keys: &Path, http: SocketAddr) -> Self {
        let key = keys.join("one.hs256");
        SigningKey::generate_hs256(key, &SeededRng::new(1)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidemark-gateway"))
            .args(["run", "--grpc", "127.0.0.1:0", "--store", "127.0.0.1:1", "--http"])
            .arg(http.to_string())
            .arg("--keys")
            .arg(keys)
            .stderr(Stdio::piped())
            .spawn();
        Waiting(child.unwrap())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status and body of an answer, once somebody listens.
fn get(http: SocketAddr, path: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpStream::connect(http) {
            Ok(mut stream) => {
                write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                return answer;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_a_store_it_waits_and_says_so() {
    let keys = tempfile::tempdir().unwrap();
    // On a host of its own, where nobody gets the port meanwhile.
    let http = TcpListener::bind("127.9.0.1:0").unwrap().local_addr().unwrap();
    let mut gateway = Waiting::start(keys.path(), http);
    let answer = get(http, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("it waits for the store; its log says why\n"), "{answer}");
    assert!(get(http, "/healthz").starts_with("HTTP/1.1 200"));
    let mut log = BufReader::new(gateway.0.stderr.take().unwrap()).lines();
    let told = log.find(|line| line.as_ref().unwrap().contains("no store node answers"));
    assert!(told.unwrap().unwrap().contains("127.0.0.1:1"), "it names the store");
    assert_eq!(gateway.0.try_wait().unwrap(), None, "it goes on waiting");
    let stop = Command::new("kill").arg(gateway.0.id().to_string()).status().unwrap();
    assert!(stop.success());
    let status = gateway.0.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn without_keys_it_ends_at_once() {
    let any = "127.0.0.1:0";
    let refused = told(&["run", "--grpc", any, "--http", any, "--keys", "nowhere"]).unwrap_err();
    assert!(refused.contains("nowhere"), "{refused}");
}
