//! What is broken on purpose stays out of the release.

use std::fs;

use anyhow::{Context, Result, ensure};
use tidemark_chaos::build::VARIABLE;
use tidemark_chaos::cluster;

/// Each binary, and something that it certainly says.
const RELEASE: [(&str, &str); 2] = [
    ("tidemark-store", "the damaged log cannot be examined"),
    ("tidemark-gateway", "the store's reply does not go with the command"),
];

fn holds(binary: &[u8], text: &str) -> bool {
    binary.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_release_holds_no_mutant() -> Result<()> {
    for (name, certain) in RELEASE {
        let path = cluster::binaries()?.join(name);
        let binary = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(holds(&binary, certain), "{name}: nothing is found in it");
        ensure!(!holds(&binary, VARIABLE), "{name} was built with mutants");
    }
    Ok(())
}
