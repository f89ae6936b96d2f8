//! What documents must keep: links that lead somewhere, files that exist, records that are whole,
//! and one list of rules.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The specification that golden scripts refer to, and how many rules it has.
const RULES: (&str, u32) = ("docs/invariants.md", 19);

/// Where golden scripts lie; a script's name begins with the rules that it holds still.
const SCRIPTS: &str = "store/core/tests/scripts/";

/// What is wrong with one document.
pub(super) fn problems(root: &Path, path: &str, text: &str) -> Vec<String> {
    [links(root, path, text), named_files(root, text), adr(path, text)].concat()
}

/// The list of rules is whole, and golden scripts name no other ones.
pub(super) fn rules(root: &Path, files: &[String]) -> Result<Vec<String>> {
    let (document, count) = RULES;
    let text = fs::read_to_string(root.join(document)).context(document)?;
    let stated = |rule: &str| text.contains(&format!("\n### {rule} "));
    let missing = (1..=count).map(|n| format!("R{n}")).filter(|rule| !stated(rule));
    let mut problems: Vec<String> =
        missing.map(|rule| format!("{document}: ### {rule} is missing")).collect();
    for script in files.iter().filter_map(|path| path.strip_prefix(SCRIPTS)) {
        for rule in script.split('_').filter(|word| is_rule(word)).filter(|rule| !stated(rule)) {
            problems.push(format!("{SCRIPTS}{script}: {document} has no rule {rule}"));
        }
    }
    Ok(problems)
}

fn is_rule(word: &str) -> bool {
    word.strip_prefix('R').is_some_and(|n| n.parse::<u32>().is_ok())
}

/// Links to files or headings that are not there.
fn links(root: &Path, path: &str, text: &str) -> Vec<String> {
    let folder = root.join(path).parent().map(Path::to_owned).unwrap_or_default();
    let targets =
        text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to);
    let leads = |to: &str| {
        let (file, heading) = to.split_once('#').unwrap_or((to, ""));
        if file.is_empty() {
            return has_heading(text, heading);
        }
        let target = folder.join(file);
        if heading.is_empty() {
            return target.exists();
        }
        fs::read_to_string(target).is_ok_and(|text| has_heading(&text, heading))
    };
    let local = targets.filter(|to| !to.contains("://") && !to.starts_with("mailto:"));
    local.filter(|to| !leads(to)).map(|to| format!("the link to {to} leads nowhere")).collect()
}

/// Does a heading of `text` have this anchor, as the usual renderers make them?
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#'))).any(|slug| slug == anchor)
}

fn slug(heading: &str) -> String {
    let kept =
        heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Files that the text names in backticks and that are not there: a document that says where to
/// look must not outlive what it points at, nor claim what has yet to come.
fn named_files(root: &Path, text: &str) -> Vec<String> {
    let words = text.split('`').skip(1).step_by(2);
    let is_file = |word: &str| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let known = [".rs", ".md", ".toml", ".txt", ".proto"].iter().any(|end| word.ends_with(end));
        plain && known && word.contains('/') && !word.starts_with('/')
    };
    let lost = words.filter(|word| is_file(word) && !root.join(word).exists());
    lost.map(|word| format!("it names {word}, which is not there")).collect()
}

/// A decision record has these parts.
fn adr(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("docs/adr/0") {
        return Vec::new();
    }
    let parts = ["Status", "Context", "Decision", "Consequences"];
    let missing = parts.iter().filter(|part| !text.contains(&format!("## {part}")));
    missing.map(|part| format!("the part ## {part} is missing")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links_of(text: &str) -> usize {
        links(Path::new("/"), "a.md", text).len()
    }

    #[test]
    fn each_check_can_fail() {
        assert_eq!(links_of("[x](nowhere.md)"), 1);
        assert_eq!(links_of("# A b\n[x](#a-b)"), 0);
        assert_eq!(links_of("# A b\n[x](#c)"), 1);
        assert_eq!(named_files(Path::new("/"), "see `no/such.rs` and `no such.rs`").len(), 1);
        assert_eq!(adr("docs/adr/0001-x.md", "## Status\n## Context").len(), 2);
    }

    #[test]
    fn a_script_of_no_rule_is_found() {
        let root = crate::root().expect("a repository");
        let script = |name: &str| rules(&root, &[format!("{SCRIPTS}{name}")]).expect("a document");
        assert_eq!(script("R1_window"), Vec::<String>::new());
        assert_eq!(script("R11_R99_x").len(), 1);
    }
}
