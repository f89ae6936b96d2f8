//! Results on standard output: text for people, or JSON, one object per line.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use clap::ValueEnum;
use serde::Serialize;

/// The last millisecond of the year 9999, after which dates have another form.
const LAST_MS: u64 = 253_402_300_799_999;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Output {
    /// What a command line wants that could not be read as a whole.
    pub(crate) fn wanted_in(given: &[String]) -> Self {
        let apart = given.windows(2).any(|two| {
            matches!(two, [flag, value] if ["-o", "--output"].contains(&&**flag) && value == "json")
        });
        let joined =
            given.iter().any(|word| ["-ojson", "-o=json", "--output=json"].contains(&&**word));
        if apart || joined { Output::Json } else { Output::Text }
    }

    /// Prints one result, which is written when this returns.
    pub(crate) fn print(self, result: &(impl Serialize + Display)) -> io::Result<()> {
        self.write(&mut io::stdout().lock(), result)
    }

    /// Tells something beside the results, on standard error.
    pub(crate) fn note(self, note: &(impl Serialize + Display)) -> io::Result<()> {
        self.write(&mut io::stderr().lock(), note)
    }

    fn write(self, out: &mut impl Write, line: &(impl Serialize + Display)) -> io::Result<()> {
        match self {
            Output::Text => writeln!(out, "{line}")?,
            Output::Json => writeln!(out, "{}", serde_json::to_string(line)?)?,
        }
        out.flush()
    }
}

/// Rows whose columns begin below each other, without a line's end after the last.
pub(crate) fn table(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A row of a table.
pub(crate) fn row<const N: usize>(cells: [&dyn Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

/// A time in milliseconds since the Unix epoch, as a date in UTC.
pub(crate) fn date(ms: u64) -> String {
    match ms {
        0..=LAST_MS => {
            let time = UNIX_EPOCH + Duration::from_millis(ms);
            humantime::format_rfc3339_millis(time).to_string()
        }
        _ => format!("{ms} ms"),
    }
}

/// Text of somebody else, without what a terminal would take for a command.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => plain.extend(c.escape_default()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_below_each_other() {
        let rows = [row([&"NODE", &"ADDRESS", &"x"]), row([&1, &"é", &""]), row([&"long one"])];
        assert_eq!(table(rows), "NODE      ADDRESS  x\n1         é\nlong one");
        assert_eq!(table([]), "");
    }

    #[test]
    fn a_date_is_one_for_any_number() {
        assert_eq!(date(1_764_000_000_123), "2025-11-24T16:00:00.123Z");
        assert_eq!(date(LAST_MS), "9999-12-31T23:59:59.999Z");
        assert_eq!(date(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn nobody_elses_text_moves_the_cursor() {
        assert_eq!(plain("zwölf\u{1b}[2J\n"), "zwölf\\u{1b}[2J\\n");
    }

    #[test]
    fn json_is_recognised_in_a_line_that_cannot_be_read() {
        let wanted =
            |line: &str| Output::wanted_in(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(wanted("tidemark -o json heed"), Output::Json);
        assert_eq!(wanted("tidemark heed --output=json"), Output::Json);
        assert_eq!(wanted("tidemark heed json -o text"), Output::Text);
    }
}
