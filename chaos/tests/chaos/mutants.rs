//! What is broken on purpose stays out of the release.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_chaos::cluster;
use tidemark_mutants::MARKER;

/// Each binary, and something that it certainly says.
const RELEASE: [(&str, &str); 4] = [
    ("tidemark-store", "a power cut tore the end of the log"),
    ("tidemark-gateway", "the store's reply does not go with the command"),
    ("tidemark", "4 unknown: repeat it with the same id."),
    ("tidemark-sim", " simulated_hours="),
];

/// A program that never turns a mutant on, and asks whether one is.
const ASKS: &str = "fn main() { assert!(!mutants::is(mutants::Mutant::NoFsync)); }";

fn holds(binary: &[u8], text: &str) -> bool {
    binary.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_release_holds_no_mutant() -> Result<()> {
    for (name, certain) in RELEASE {
        let path = cluster::binaries()?.join(name);
        if !path.is_file() {
            eprintln!("NOT LOOKED AT, since it is not built: {name}");
            continue;
        }
        let binary = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(holds(&binary, certain), "{name}: nothing is found in it");
        ensure!(!holds(&binary, MARKER), "{name} was built with mutants");
    }
    Ok(())
}

/// A release that was built with mutants by mistake would be such a program.
#[test]
fn a_program_that_asks_for_mutants_is_found() -> Result<()> {
    ensure!(holds(&built(&["--cfg", "feature=\"mutants\""])?, MARKER), "the marker is not in it");
    ensure!(!holds(&built(&[])?, MARKER), "the marker is in a program without mutants");
    Ok(())
}

/// [`ASKS`], compiled with these flags.
fn built(flags: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (source, program) = (folder.path().join("main.rs"), folder.path().join("program"));
    let mutants = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mutants/src/lib.rs");
    fs::write(&source, format!("#[path = {mutants:?}]\nmod mutants;\n{ASKS}\n"))?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "--cap-lints", "allow"]).args(flags);
    let output = rustc.arg("-o").arg(&program).arg(&source).output().context("rustc")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read(program)?)
}
