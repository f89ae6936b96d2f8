//! The page: faults, leaders, throughput and latency on one line of time, the ledger, and what
//! went wrong. One file, no script, nothing fetched.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use tidemark_checker::history::{Nanos, Op, Outcome, RaftFacts};
use tidemark_checker::{Event, Files, History, Report, Story};

use super::{Spread, Summary};

/// Pixels.
const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 90.0;
const CHART: f64 = 120.0;
const LANE: f64 = 16.0;

/// Events of a story that are shown, at most.
const STORY_MAX: usize = 400;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2530; --soft: #6b7785; --paper: #fff; --line: #d7dde3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf0; --soft: #93a0ad; --paper: #14191f; --line: #313a44; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1140px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr + tr td { border-top: 1px solid var(--line); }
.holds { color: #1a7f4b; } .violated { color: #c2352b; } .void { color: #b07400; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
pre { overflow-x: auto; background: color-mix(in srgb, var(--line) 30%, transparent); padding: .8rem; }
.scroll { overflow-x: auto; }
";

/// Colours of nodes, from 1.
const NODES: [&str; 5] = ["#3b82c4", "#e08a2e", "#4fa36b", "#9a6bc4", "#c4566b"];

/// What a second of the run was like.
#[derive(Default)]
struct Second {
    acked: u64,
    taken: u64,
    /// Milliseconds from send to acknowledgement.
    latencies: Vec<f64>,
}

impl Second {
    /// The latency within which this share of its acknowledgements came.
    fn latency(&self, share: f64) -> f64 {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// What the charts show.
#[derive(Default)]
struct Course {
    seconds: Vec<Second>,
    /// For each group, who led from when on.
    leaders: BTreeMap<u32, Vec<(Nanos, u64)>>,
}

impl Course {
    fn read(history: &Path) -> Result<Self> {
        let mut course = Course::default();
        let mut open = BTreeMap::<Op, Nanos>::new();
        for event in Files::default().whole(history).events()? {
            match event? {
                Event::Send { op, at, .. } => drop(open.insert(op, at)),
                Event::Sent { op, at, outcome: Outcome::Accepted { .. } } => {
                    let second = course.second(at);
                    second.acked += 1;
                    if let Some(sent) = open.remove(&op) {
                        second.latencies.push((at.0 - sent.0) as f64 / 1e6);
                    }
                }
                Event::Taken { at, .. } => course.second(at).taken += 1,
                Event::Raft(RaftFacts { at, node, group, leads: true, .. }) => {
                    let led = course.leaders.entry(group.0).or_default();
                    if led.last().is_none_or(|(_, leader)| *leader != node.0) {
                        led.push((at, node.0));
                    }
                }
                _ => {}
            }
        }
        for second in &mut course.seconds {
            second.latencies.sort_unstable_by(f64::total_cmp);
        }
        Ok(course)
    }

    fn second(&mut self, at: Nanos) -> &mut Second {
        let second = usize::try_from(at.0 / 1_000_000_000).unwrap_or(usize::MAX);
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        &mut self.seconds[second]
    }
}

/// The whole page.
pub(super) fn page(history: &Path, summary: &Summary, report: &Report) -> Result<String> {
    let course = Course::read(history)?;
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
         content=\"width=device-width\"><title>{name}: {verdict}</title><style>{STYLE}</style>\
         <h1>{name}: <span class={verdict}>{verdict}</span></h1>\
         <p>{seconds} s of load, seed {seed}; on {isolation}; {build}, {version}.</p>",
        name = summary.scenario,
        verdict = summary.verdict,
        seconds = summary.seconds,
        seed = summary.seed,
        isolation = summary.isolation,
        build = summary.build,
        version = summary.version,
    );
    page += &ledger(summary);
    page += &charts(&course, summary)?;
    page += &faults(summary)?;
    page += &violations(history, report)?;
    Ok(page)
}

fn ledger(summary: &Summary) -> String {
    let rows = [
        ("acknowledged", summary.acked),
        ("delivered", summary.delivered),
        ("refused", summary.refused),
        ("dropped by checks", summary.dropped),
        ("lost", summary.lost),
        ("duplicated", summary.duplicated),
        ("out of order", summary.out_of_order),
        ("seqs missing", summary.seq_gaps),
        ("replicas that differ", summary.divergent_replicas),
        ("unsynced bytes lost in power cuts", summary.unsynced_bytes_lost),
    ];
    let rows = rows.map(|(name, count)| format!("<tr><td>{name}<td class=n>{count}"));
    format!("<h2>Ledger</h2><table>{}</table>", rows.concat())
}

fn charts(course: &Course, summary: &Summary) -> Result<String> {
    let seconds = course.seconds.len().max(1) as f64;
    let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - 10.0);
    let lanes = course.leaders.len() as f64 * LANE;
    let height = 30.0 + 2.0 * (CHART + 30.0) + lanes + 40.0;
    let mut svg = format!(
        "<h2>Course</h2><div class=scroll><svg viewBox=\"0 0 {WIDTH} {height}\" role=img \
         aria-label=\"throughput, latency, leaders and faults over time\">"
    );
    svg += &bands(summary, height, &x)?;
    let of = |count: fn(&Second) -> f64| course.seconds.iter().map(count).collect::<Vec<_>>();
    let taken = of(|second| second.taken as f64);
    let acked = of(|second| second.acked as f64);
    let top = 20.0;
    let lines = [("taken", "#4fa36b", &taken[..]), ("acked", "#3b82c4", &acked)];
    svg += &chart(top, &x, "a second", &lines)?;
    let median = of(|second| second.latency(0.5));
    let high = of(|second| second.latency(0.99));
    let top = top + CHART + 30.0;
    let lines = [("p99", "#e08a2e", &high[..]), ("p50", "#3b82c4", &median)];
    svg += &chart(top, &x, "ms to ack", &lines)?;
    let top = top + CHART + 30.0;
    svg += &leaders(course, top, &x)?;
    for tick in 0..=10 {
        let at = seconds * f64::from(tick) / 10.0;
        let (x, y) = (x(at), top + lanes + 16.0);
        write!(svg, "<text x={x:.1} y={y:.1} text-anchor=middle>{at:.0} s</text>")?;
    }
    svg += "</svg></div><p>";
    for (number, colour) in NODES.iter().enumerate().take(3) {
        write!(svg, "<span style=\"color:{colour}\">■</span> node {} ", number + 1)?;
    }
    svg +=
        "lead; <span style=\"color:#c2352b\">■</span> a fault, as wide as shards were unavailable.";
    Ok(svg + "</p>")
}

/// A band for each fault, as wide as it was felt.
fn bands(summary: &Summary, height: f64, x: &impl Fn(f64) -> f64) -> Result<String> {
    let mut svg = String::new();
    for fault in &summary.faults {
        let (at, felt) = (fault.at_ms as f64 / 1e3, fault.unavailable_ms as f64 / 1e3);
        write!(
            svg,
            "<rect x={:.1} y=10 width={:.1} height={:.1} fill=\"#c2352b\" opacity=.18>\
             <title>{} {} at {at:.1} s: unavailable {} ms</title></rect>",
            x(at),
            (x(felt) - LEFT).max(1.5),
            height - 40.0,
            fault.kind,
            escaped(&fault.target),
            fault.unavailable_ms,
        )?;
    }
    Ok(svg)
}

/// A lane for each group: who led it when.
fn leaders(course: &Course, mut top: f64, x: &impl Fn(f64) -> f64) -> Result<String> {
    let mut svg = String::new();
    let last = course.seconds.len() as f64;
    for (group, led) in &course.leaders {
        let name = if *group == u32::MAX { "control".to_owned() } else { format!("shard {group}") };
        write!(svg, "<text x=4 y={:.1}>{name}</text>", top + 11.0)?;
        let ends = led.iter().skip(1).map(|(at, _)| at.0 as f64 / 1e9).chain([last]);
        for ((at, node), end) in led.iter().zip(ends) {
            let from = at.0 as f64 / 1e9;
            let colour = NODES[usize::try_from(*node)?.saturating_sub(1) % NODES.len()];
            let wide = (x(end) - x(from)).max(1.0);
            write!(
                svg,
                "<rect x={:.1} y={top:.1} width={wide:.1} height=12 fill=\"{colour}\">\
                 <title>{name}: node {node} from {from:.1} s</title></rect>",
                x(from),
            )?;
        }
        top += LANE;
    }
    Ok(svg)
}

fn chart(
    top: f64,
    x: &impl Fn(f64) -> f64,
    unit: &str,
    lines: &[(&str, &str, &[f64])],
) -> Result<String> {
    let bottom = top + CHART;
    let most = lines.iter().flat_map(|(_, _, values)| *values).copied().fold(1.0, f64::max);
    let mut svg = format!(
        "<text x=4 y={:.1}>{most:.0}</text><text x=4 y={:.1}>{unit}</text><text x=4 y={bottom:.1}>0</text>\
         <line x1={LEFT} x2={WIDTH} y1={bottom:.1} y2={bottom:.1} stroke=\"var(--line)\"/>",
        top + 10.0,
        top + 26.0,
    );
    for (at, (name, colour, values)) in lines.iter().enumerate() {
        let points = values.iter().enumerate().map(|(second, value)| {
            format!("{:.1},{:.1}", x(second as f64 + 0.5), bottom - value / most * CHART)
        });
        let points = points.collect::<Vec<_>>().join(" ");
        write!(
            svg,
            "<polyline points=\"{points}\" fill=none stroke=\"{colour}\" stroke-width=1.4 />\
             <text x=4 y={:.1} style=\"fill:{colour}\">{name}</text>",
            top + 46.0 + 16.0 * at as f64,
        )?;
    }
    Ok(svg)
}

fn faults(summary: &Summary) -> Result<String> {
    let mut page =
        "<h2>Faults</h2><table><tr><th>kind<th class=n>times<th class=n>unavailable ms, \
                    p50<th class=n>p99<th class=n>max"
            .to_owned();
    for (kind, Spread { times, p50_ms, p99_ms, max_ms }) in summary.unavailable() {
        write!(
            page,
            "<tr><td>{kind}<td class=n>{times}<td class=n>{p50_ms}<td class=n>{p99_ms}\
             <td class=n>{max_ms}"
        )?;
    }
    page += "</table><details><summary>each</summary><table><tr><th class=n>at s<th>kind<th>target\
             <th class=n>unavailable ms";
    for fault in &summary.faults {
        write!(
            page,
            "<tr><td class=n>{:.1}<td>{}<td>{}<td class=n>{}",
            fault.at_ms as f64 / 1e3,
            fault.kind,
            escaped(&fault.target),
            fault.unavailable_ms,
        )?;
    }
    Ok(page + "</table></details>")
}

fn violations(history: &Path, report: &Report) -> Result<String> {
    if report.wrong.is_empty() {
        return Ok("<h2>Checks</h2><p>Every check holds.</p>".to_owned());
    }
    let mut page = "<h2>What is wrong</h2><table>".to_owned();
    for (code, count) in &report.wrong {
        write!(page, "<tr><td>{code}<td class=n>{count}<td>{}", code.meaning())?;
    }
    page += "</table>";
    for violation in report.violations.iter().take(20) {
        let witness: Vec<String> =
            violation.witness.iter().map(|event| format!("{event:?}")).collect();
        write!(
            page,
            "<p><b>{}</b> {}</p><pre>{}</pre>",
            violation.code,
            escaped(&violation.reason),
            escaped(&witness.join("\n")),
        )?;
    }
    if let Some(user) = report.violations.iter().find_map(|violation| violation.user) {
        write!(page, "<h2>The story of {user}'s mailbox</h2><pre>")?;
        for event in Story::of(Files::default().whole(history).events()?, user).take(STORY_MAX) {
            writeln!(page, "{}", escaped(&format!("{:?}", event?)))?;
        }
        page += "</pre>";
    }
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
