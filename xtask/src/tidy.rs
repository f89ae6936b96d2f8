//! The checks: each is a function from a tracked file to what is wrong with it.

mod markdown;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::docs;

/// Lines of a Rust file; beyond it the file is more than one room.
const LINES_MAX: usize = 800;

/// Which crate may use which: a crate's own name, and those of ours that it may name. Data flows
/// down this list, never up.
const LAYERS: [(&str, &[&str]); 25] = [
    ("version", &[]),
    ("allocator", &[]),
    ("process", &[]),
    ("mutants", &[]),
    ("types", &[]),
    ("env", &["types"]),
    ("token", &["types", "env"]),
    ("push/sim", &[]),
    ("push", &["mutants", "types", "env", "push-sim"]),
    ("proto", &["types", "env"]),
    ("store/core", &["mutants", "types"]),
    ("store/client", &["types", "env", "proto", "store-core"]),
    ("chaos/lab", &["env"]),
    (
        "store",
        &[
            "lab",
            "version",
            "allocator",
            "process",
            "mutants",
            "types",
            "env",
            "proto",
            "store-core",
            "store-client",
        ],
    ),
    (
        "gateway",
        &[
            "version",
            "allocator",
            "process",
            "mutants",
            "types",
            "env",
            "token",
            "proto",
            "push",
            "store-core",
            "store-client",
        ],
    ),
    ("client/cli", &["version", "types", "env", "proto", "token", "client"]),
    ("client", &["types", "env", "proto"]),
    ("chaos/checker", &["types"]),
    (
        "chaos",
        &[
            "version",
            "lab",
            "mutants",
            "types",
            "env",
            "token",
            "push-sim",
            "proto",
            "client",
            "store",
            "store-core",
            "store-client",
            "checker",
        ],
    ),
    (
        "chaos/sim",
        &[
            "version",
            "mutants",
            "types",
            "env",
            "token",
            "proto",
            "client",
            "gateway",
            "store",
            "store-core",
            "store-client",
            "checker",
            "chaos",
        ],
    ),
    (
        "demo",
        &["version", "types", "env", "client", "chaos", "store", "store-core", "store-client"],
    ),
    ("demo/page", &["version", "types", "env", "token", "proto", "push-sim"]),
    (
        "bench",
        &[
            "version",
            "allocator",
            "process",
            "types",
            "env",
            "token",
            "proto",
            "client",
            "store-core",
            "store-client",
        ],
    ),
    ("paper", &["version", "types", "env", "token", "push-sim", "proto", "lab", "client"]),
    ("xtask", &["types", "proto"]),
];

/// Where a library that we keep in one room may be named.
const ROOMS: [(&str, &[&str]); 9] = [
    ("openraft", &["store/src/raft/"]),
    ("rocksdb", &["store/src/storage/"]),
    ("jsonwebtoken", &["token/", "push/src/providers/"]),
    ("reqwest", &["push/"]),
    ("redb", &["client/src/store/"]),
    ("async_nats", &["bench/src/peers/nats.rs"]),
    ("lapin", &["bench/src/peers/rabbitmq.rs"]),
    ("tokio_tungstenite", &["gateway/src/connect/", "gateway/tests/", "bench/src/websocket.rs"]),
    // The wire: its crate, the edges of the store node, and whoever calls them.
    (
        "tonic",
        &[
            "proto/",
            "store/client/",
            "client/cli/",
            "demo/page/src/phones.rs",
            "bench/src/wire.rs",
            "bench/src/peers/etcd/wire.rs",
            "bench/src/peers/floor/echo.rs",
            "chaos/src/wire.rs",
            "gateway/src/connect/",
            "gateway/src/backend/",
            "gateway/src/checks/hook/",
            "gateway/src/checks/hook/grpc.rs",
            "gateway/src/kept.rs",
            "gateway/src/serve.rs",
            "gateway/src/sockets.rs",
            "gateway/tests/",
            "client/src/devices.rs",
            "client/src/grpc.rs",
            "client/src/numbers.rs",
            "client/tests/",
            "store/src/raft/network",
            "store/src/serve.rs",
            "store/src/server/",
            "store/tests/",
            "chaos/sim/src/net.rs",
            "paper/src/register.rs",
        ],
    ),
];

/// Everything that is wrong, one line each.
pub(crate) fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let files = tracked(root)?;
    problems.extend(markdown::rules(root, &files)?);
    for path in files {
        // Binary files and files deleted in the working tree have no text to check.
        let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
        let found = [rust(&path, &text), manifest(&path, &text), paths(&path, &text)];
        problems.extend(found.into_iter().flatten().map(|problem| format!("{path}: {problem}")));
        if path.ends_with(".md") {
            let found = markdown::problems(root, &path, &text);
            problems.extend(found.into_iter().map(|problem| format!("{path}: {problem}")));
        }
    }
    for (path, text) in docs::generated() {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(&text) {
            problems.push(format!("{path}: it is not what `cargo xtask docs` writes"));
        }
    }
    Ok(problems)
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let list = Command::new("git").arg("ls-files").current_dir(root).output().context("git")?;
    ensure!(list.status.success(), "git ls-files: {}", String::from_utf8_lossy(&list.stderr));
    Ok(String::from_utf8(list.stdout)?.lines().map(str::to_owned).collect())
}

fn rust(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !path.ends_with(".rs") {
        return problems;
    }
    if !text.starts_with("//!") {
        problems.push("it does not begin with //!: what it is, what it refuses".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(format!("{lines} lines, at most {LINES_MAX}: more than one room"));
    }
    // In two halves, so that this file does not find itself.
    for marker in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ] {
        if text.contains(marker) {
            problems.push(format!("{marker}: finish it, or say in the documents what is missing"));
        }
    }
    for (library, rooms) in ROOMS {
        let outside = !path.starts_with("xtask/") && !rooms.iter().any(|r| path.starts_with(r));
        if outside && text.lines().any(|line| names(line, library)) {
            problems.push(format!("it names {library}, which stays in {}", rooms.join(", ")));
        }
    }
    problems
}

/// Does a line of code, comments apart, name something of this library?
fn names(line: &str, library: &str) -> bool {
    let line = line.trim_start();
    let path = format!("{library}::");
    let mut found = line.match_indices(&path);
    // "monotonic::" does not name "tonic::".
    let whole = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    !line.starts_with("//") && found.any(|(at, _)| whole(at))
}

fn manifest(path: &str, text: &str) -> Vec<String> {
    let Some(member) = path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let mut problems = Vec::new();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == member) else {
        return vec!["the crate has no place in xtask's list of layers".to_owned()];
    };
    let mut in_dependencies = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        }
        let Some((name, value)) = line.split_once('=').filter(|_| in_dependencies) else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let inherits = name.ends_with(".workspace") && value == "true"
            || value.starts_with("{ workspace = true,");
        if !inherits {
            problems.push(format!("`{line}`: versions stand in the workspace's Cargo.toml only"));
        }
        let ours = name.strip_suffix(".workspace").unwrap_or(name).strip_prefix("tidemark-");
        if let Some(ours) = ours.filter(|ours| !allowed.contains(ours)) {
            problems.push(format!("it may not use {ours}: the arrow points up"));
        }
    }
    problems
}

/// Paths of somebody's own machine.
fn paths(path: &str, text: &str) -> Vec<String> {
    let own = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let found = own.iter().filter(|own| path != "Cargo.lock" && text.contains(**own));
    found.map(|own| format!("it names a path of one machine: {own}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let root = crate::root().expect("a repository");
        let problems = problems(&root).expect("git and files");
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn each_check_can_fail() {
        assert_eq!(rust("a.rs", "fn main() {}").len(), 1);
        assert_eq!(rust("store/src/node.rs", "//! x\nuse openraft::Raft;").len(), 1);
        assert_eq!(rust("a.rs", &format!("//! x\n{}", "\n".repeat(LINES_MAX))).len(), 1);
        assert_eq!(manifest("types/Cargo.toml", "[dependencies]\nserde = \"1\"").len(), 1);
        let up = "[dependencies]\ntidemark-store.workspace = true";
        assert_eq!(manifest("types/Cargo.toml", up).len(), 1);
        assert_eq!(manifest("unknown/Cargo.toml", "").len(), 1);
        assert_eq!(paths("a.md", concat!("see /wo", "rk/main")).len(), 1);
        assert_eq!(rust("chaos/src/a.rs", "//! x\nlet s = tonic::Status::ok();").len(), 1);
        assert_eq!(rust("env/src/a.rs", "//! x\nmonotonic::now()"), Vec::<String>::new());
    }
}
