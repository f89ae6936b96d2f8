//! A list of words, and what is to be done about a body that has one. Pure.
//!
//! ```text
//!   # comment
//!   reject  word          the message is refused
//!   drop    some words    it goes nowhere, and its sender is not told
//!   replace word          stars in its place
//!   allow   sword         no word within this one counts
//! ```
//!
//! A word is found anywhere in a body, also as a part of another one; of ASCII letters upper and
//! lower case are the same. Of all that is found the strictest decides: reject, then drop, then
//! replace.

use std::io;
use std::path::PathBuf;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use bytes::Bytes;
use thiserror::Error;
use tidemark_types::ErrorCode;

use super::Finding;
use crate::limits::{WORD_BYTES_MAX, WORD_LIST_BYTES_MAX};

/// Why a list cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the word list {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a list of words.
    #[error("the word list {path}: {reason}")]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and in which line.
        reason: Broken,
    },
}

/// What is wrong with a list.
#[derive(Debug, Error)]
pub enum Broken {
    /// It is larger than a list may be.
    #[error("it is larger than {WORD_LIST_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no text.
    #[error("it is not UTF-8")]
    NoText,
    /// A line that says something else.
    #[error(
        "line {0}: it is `reject`, `drop`, `replace` or `allow`, and a word of up to {WORD_BYTES_MAX} bytes"
    )]
    Line(usize),
    /// Too much for one search.
    #[error("its words are too many: {0}")]
    TooMany(BuildError),
}

/// What is to be done about a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// Nothing, nor about any word within it.
    Allow,
    Replace,
    Drop,
    Reject,
}

/// A list that can be searched for.
pub(super) struct Words {
    search: AhoCorasick,
    /// By the search's numbers.
    actions: Vec<Action>,
    /// There are words that allow others.
    allows: bool,
}

impl Words {
    /// The list that this file is.
    pub(super) fn parse(file: &[u8]) -> Result<Self, Broken> {
        let text = str::from_utf8(file).map_err(|_| Broken::NoText)?;
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (mut words, mut actions) = (Vec::new(), Vec::new());
        for (number, line) in lines {
            let (action, word) = entry(line).ok_or(Broken::Line(number))?;
            words.push(word);
            actions.push(action);
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(words)
            .map_err(Broken::TooMany)?;
        let allows = actions.contains(&Action::Allow);
        Ok(Words { search, actions, allows })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.actions.len()
    }

    /// What is to be done about a body.
    pub(super) fn find(&self, body: &Bytes) -> Finding {
        let mut matches = self.search.find_overlapping_iter(body).peekable();
        if matches.peek().is_none() {
            return Finding::Pass;
        }
        let reach = self.allowed(body);
        let mut strictest = Action::Allow;
        let mut starred = Vec::new();
        for found in matches {
            let action = self.actions[found.pattern().as_usize()];
            let within = reach.get(found.start()).is_some_and(|end| found.end() <= *end);
            if action == Action::Allow || within {
                continue;
            }
            strictest = strictest.max(action);
            if strictest == Action::Reject {
                break;
            }
            if action == Action::Replace {
                starred.resize(body.len(), false);
                starred[found.range()].fill(true);
            }
        }
        match strictest {
            Action::Allow => Finding::Pass,
            Action::Replace => Finding::Replace(stars(body, &starred)),
            Action::Drop => Finding::Drop,
            Action::Reject => Finding::Refuse(ErrorCode::Filtered),
        }
    }

    /// For each place, how far a word reaches that begins there or before, and allows what is within
    /// it; empty without such words.
    fn allowed(&self, body: &[u8]) -> Vec<usize> {
        if !self.allows {
            return Vec::new();
        }
        let mut reach = vec![0; body.len()];
        for found in self.search.find_overlapping_iter(body) {
            if self.actions[found.pattern().as_usize()] == Action::Allow {
                let end = &mut reach[found.start()];
                *end = found.end().max(*end);
            }
        }
        let mut longest = 0;
        for end in &mut reach {
            longest = longest.max(*end);
            *end = longest;
        }
        reach
    }
}

/// A line of the list.
fn entry(line: &str) -> Option<(Action, &str)> {
    let (action, word) = line.split_once(char::is_whitespace)?;
    let action = match action {
        "allow" => Action::Allow,
        "replace" => Action::Replace,
        "drop" => Action::Drop,
        "reject" => Action::Reject,
        _ => return None,
    };
    let word = word.trim_start();
    (1..=WORD_BYTES_MAX).contains(&word.len()).then_some((action, word))
}

/// The body with one star for each character that is to have one; it never becomes longer.
fn stars(body: &[u8], starred: &[bool]) -> Bytes {
    let continues = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    let stars = body.iter().zip(starred).filter_map(|(byte, starred)| match starred {
        false => Some(*byte),
        true => (!continues(*byte)).then_some(b'*'),
    });
    stars.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(list: &str) -> Words {
        Words::parse(list.as_bytes()).expect("a test's list")
    }

    /// What is found in a body, in words.
    fn find(list: &str, body: &str) -> String {
        match words(list).find(&Bytes::from(body.to_owned())) {
            Finding::Replace(body) => String::from_utf8(body.to_vec()).expect("UTF-8"),
            Finding::Refuse(code) => code.to_string(),
            other => other.name().to_owned(),
        }
    }

    #[test]
    fn each_word_says_what_becomes_of_the_message() {
        let list = "# mild\nreplace darn\n\n  drop  buy now  \nreject\tevil\nreplace 坏话";
        assert_eq!(words(list).len(), 4);
        assert_eq!(find(list, "hello"), "pass");
        assert_eq!(find(list, ""), "pass");
        assert_eq!(find(list, "Darn, darned!"), "****, ****ed!");
        assert_eq!(find(list, "说坏话!"), "说**!");
        assert_eq!(find(list, "BUY NOW, darn"), "drop");
        assert_eq!(find(list, "buy now, evil"), "FILTERED");
        assert_eq!(find("", "anything"), "pass");
    }

    #[test]
    fn a_word_within_an_allowed_one_does_not_count() {
        let list = "reject cunt\nallow scunthorpe\nreplace thor\nallow hor";
        assert_eq!(find(list, "Scunthorpe"), "pass");
        assert_eq!(find(list, "scunthorp"), "FILTERED");
        assert_eq!(find(list, "Thor of Scunthorpe"), "**** of Scunthorpe");
        // The allowed word must hold all of it.
        assert_eq!(find("reject abc\nallow xab\nallow bcx", "xabcx"), "FILTERED");
        assert_eq!(find("reject abc\nallow xa\nallow abcd", "xabcd"), "pass");
    }

    #[test]
    fn words_that_overlap_are_all_found() {
        assert_eq!(find("replace abc\nreplace cde", "abcdef"), "*****f");
        assert_eq!(find("replace a\nreject abc", "xabc"), "FILTERED");
        assert_eq!(find("replace xa\nreject abc", "xabc"), "FILTERED");
    }

    #[test]
    fn a_body_that_is_no_text_is_searched_as_well() {
        let body = Bytes::from_static(b"\xff\x00evil\xfe");
        assert!(matches!(words("reject evil").find(&body), Finding::Refuse(ErrorCode::Filtered)));
        let Finding::Replace(starred) = words("replace evil").find(&body) else { panic!("stars") };
        assert_eq!(&starred[..], b"\xff\x00****\xfe");
    }

    #[test]
    fn a_broken_list_is_refused_by_its_line() {
        let long = format!("reject {}", "x".repeat(WORD_BYTES_MAX + 1));
        for (list, line) in [
            ("reject", 1),
            ("reject ", 1),
            ("# fine\n\nforbid word", 3),
            ("word", 1),
            ("REJECT word", 1),
            (long.as_str(), 1),
        ] {
            let broken = Words::parse(list.as_bytes()).err().expect("broken");
            assert!(matches!(broken, Broken::Line(at) if at == line), "{list}: {broken}");
        }
        assert!(matches!(Words::parse(b"reject \xff"), Err(Broken::NoText)));
    }

    proptest! {
        /// Against a search that tries every word at every place.
        #[test]
        fn the_strictest_word_that_is_not_allowed_decides(
            entries in proptest::collection::vec(
                (prop::sample::select(vec!["reject", "drop", "replace", "allow"]), "[ab]{1,3}"), 0..6
            ),
            body in "[abAB]{0,12}",
        ) {
            let list: String =
                entries.iter().map(|(action, word)| format!("{action} {word}\n")).collect();
            let lower = body.to_lowercase();
            let found: Vec<_> = entries
                .iter()
                .flat_map(|(action, word)| {
                    let starts = (0..lower.len()).filter(|at| lower[*at..].starts_with(word));
                    starts.map(|at| (*action, at..at + word.len())).collect::<Vec<_>>()
                })
                .collect();
            let counts: Vec<_> = found
                .iter()
                .filter(|(action, range)| {
                    *action != "allow"
                        && !found.iter().any(|(other, around)| {
                            *other == "allow"
                                && around.start <= range.start
                                && range.end <= around.end
                        })
                })
                .collect();
            let has = |action| counts.iter().any(|(other, _)| *other == action);
            let wanted = if has("reject") {
                "FILTERED".to_owned()
            } else if has("drop") {
                "drop".to_owned()
            } else if has("replace") {
                let starred = |at: usize| counts.iter().any(|(_, range)| range.contains(&at));
                body.chars().enumerate().map(|(at, c)| if starred(at) { '*' } else { c }).collect()
            } else {
                "pass".to_owned()
            };
            prop_assert_eq!(find(&list, &body), wanted);
        }

        #[test]
        fn no_list_and_no_body_make_it_panic(list: Vec<u8>, body: Vec<u8>) {
            if let Ok(words) = Words::parse(&list) {
                let _ = words.find(&body.into());
            }
        }
    }
}
