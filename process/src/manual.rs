//! The manual's tables of metrics, made from what the servers tell their exporters: a server's test
//! holds its table to the code, and with `UPDATE_GOLDENFILES=1` writes it anew.
//!
//! Nothing here runs in a server.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{env, fs};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

const MANUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

/// Holds the table of `server` in docs/metrics.md to what `describe` tells.
///
/// # Panics
/// If they differ, or the manual has no place for it.
pub fn hold_metrics_table(server: &str, describe: impl FnOnce()) {
    let manual = fs::read_to_string(MANUAL).expect("docs/metrics.md");
    let (begin, end) =
        (format!("<!-- {server}: made from its code -->\n"), format!("<!-- end of {server} -->\n"));
    let (before, rest) = manual.split_once(&begin).expect("the place of the table");
    let (found, after) = rest.split_once(&end).expect("the end of the table");
    let wanted = table(describe);
    if found == wanted {
        return;
    }
    if env::var_os("UPDATE_GOLDENFILES").is_some() {
        let manual = format!("{before}{begin}{wanted}{end}{after}");
        fs::write(Path::new(MANUAL), manual).expect("writable");
        return;
    }
    panic!(
        "docs/metrics.md is not what {server} tells: run this test with UPDATE_GOLDENFILES=1\n\
         {wanted}"
    );
}

fn table(describe: impl FnOnce()) -> String {
    let heard = Heard::default();
    metrics::with_local_recorder(&heard, describe);
    let rows = heard.0.lock().expect("nobody panicked");
    let mut table = "\n| metric | kind | unit | |\n|---|---|---|---|\n".to_owned();
    for Row { name, kind, unit, help } in rows.iter() {
        let _ = writeln!(table, "| `{name}` | {kind} | {unit} | {help} |");
    }
    table.push('\n');
    table
}

struct Row {
    name: String,
    kind: &'static str,
    unit: &'static str,
    help: String,
}

/// Hears what metrics are, and measures nothing.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Row>>>);

impl Heard {
    fn hear(&self, name: KeyName, kind: &'static str, unit: Option<Unit>, help: SharedString) {
        let unit = match unit {
            None | Some(Unit::Count) => "",
            Some(unit) => unit.as_str(),
        };
        let row = Row { name: name.as_str().to_owned(), kind, unit, help: help.into_owned() };
        self.0.lock().expect("nobody panicked").push(row);
    }
}

impl Recorder for Heard {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.hear(name, "counter", unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.hear(name, "gauge", unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.hear(name, "histogram", unit, help);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
