//! A report as people read it.

use std::fmt::Write as _;

use super::report::{Load, Report};
use super::stats::LATENCIES;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// More tokens a chunk than that are told.
const TOKENS_PER_CHUNK: f64 = 1.05;

/// Bars from 0 to the largest, so that what hardly changes looks as it is. Nothing is a blank.
pub(super) fn sparkline(values: &[Option<f64>]) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: f64| {
        let share = if most > 0.0 { value / most } else { 0.0 };
        BARS[((share * BARS.len() as f64).ceil() as usize).clamp(1, BARS.len()) - 1]
    };
    let line: String = values.iter().map(|v| v.map_or(' ', bar)).collect();
    line.trim_end().to_owned()
}

/// With three digits that count, at least, and thousands apart.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 10.0 => 2,
        v if v < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        let left = whole.len() - i;
        if i > 0 && left % 3 == 0 && !out.ends_with('-') {
            out.push(',');
        }
        out.push(c);
    }
    if !fraction.is_empty() {
        let _ = write!(out, ".{fraction}");
    }
    out
}

fn count(n: u64) -> String {
    if n < 1000 { n.to_string() } else { number(n as f64) }
}

/// Of a load, in two lines.
pub(super) fn describe(load: &Load) -> String {
    let Load { url, model, .. } = load;
    let route = if load.endpoint == "chat" { "chat/completions" } else { "completions" };
    let mut text = format!("{url}/{route}, model {model}\n");
    let arrivals = match (load.request_rate, load.max_concurrency) {
        (Some(rate), at_once) => {
            let most = at_once.map(|n| format!(", {n} at once at most")).unwrap_or_default();
            let shape = load.burstiness.filter(|&b| b != 1.0);
            let shape = shape.map(|b| format!(" (burstiness {b})")).unwrap_or_default();
            format!("open loop, {rate} requests/s{shape}{most}")
        }
        (None, clients) => format!("closed loop, clients: {}", clients.unwrap_or(1)),
    };
    let prompts = match load.input_len {
        Some(tokens) => format!("{tokens} tokens of random words"),
        None => format!("prompts of {}", load.prompts),
    };
    let _ = write!(text, "{arrivals}; {prompts}");
    if load.prefix_len > 0 {
        let _ = write!(text, " behind {} shared ones", load.prefix_len);
        if load.num_prefixes > 1 {
            let _ = write!(text, " ({} prefixes)", load.num_prefixes);
        }
    }
    let _ = writeln!(text, ", {} out; seed {}", load.output_len, load.seed);
    text
}

impl Report {
    /// The whole table.
    pub(super) fn table(&self) -> String {
        let mut out = describe(&self.load);
        out.push('\n');
        self.counts(&mut out);
        if !self.figures.is_empty() {
            out.push('\n');
            self.latencies(&mut out);
        }
        self.notes(&mut out);
        out
    }

    fn counts(&self, out: &mut String) {
        let requests = &self.requests;
        let mut row = |name: &str, text: String| {
            let _ = writeln!(out, "{name:<12}{text}");
        };
        let unfinished = match requests.unfinished {
            0 => String::new(),
            n => format!(", {n} interrupted"),
        };
        let (completed, failed, wall) = (requests.completed, requests.failed, number(self.wall_s));
        row("requests", format!("{completed} completed, {failed} failed{unfinished} in {wall} s"));
        for errors in &self.errors {
            row("", format!("{} x {}: {}", errors.count, errors.kind, errors.message));
        }
        if self.figures.is_empty() {
            return;
        }
        let rate = |name: &str| number(self.figures.get(name).copied().unwrap_or(0.0));
        let (r, o, t) =
            (rate("requests_per_s"), rate("output_tokens_per_s"), rate("total_tokens_per_s"));
        row("throughput", format!("{r} requests/s, {o} output tok/s, {t} tok/s in and out"));
        let tokens = &self.tokens;
        if tokens.input > 0 {
            let asked = self.load.input_len.map(|n| (n + self.load.prefix_len) as u64);
            let each = range(tokens.input_min, tokens.input_max, asked);
            let cached = tokens.input_cached.filter(|&n| n > 0);
            let share =
                |n: u64| format!(", {:.0} % cached", 100.0 * n as f64 / tokens.input as f64);
            let cached = cached.map(share).unwrap_or_default();
            row("tokens in", format!("{} ({each}){cached}", count(tokens.input)));
        }
        let asked = self.load.input_len.map(|_| u64::from(self.load.output_len));
        let each = range(tokens.output_min, tokens.output_max, asked);
        row("tokens out", format!("{} ({each})", count(tokens.output)));
        if let Some(good) = &self.goodput {
            let (share, of) = (100.0 * good.share, completed + failed);
            let rate = number(good.requests_per_s);
            let text = format!("{rate} requests/s, {} of {of} ({share:.1} %) with", good.requests);
            row("goodput", format!("{text} {}", good.targets));
        }
    }

    fn latencies(&self, out: &mut String) {
        const COLUMNS: [&str; 5] = ["mean", "p50", "p90", "p99", "max"];
        let _ = write!(out, "{:<12}", "ms");
        for name in COLUMNS {
            let _ = write!(out, "{name:>9}");
        }
        let _ = writeln!(out, "   medians over the run");
        for name in LATENCIES {
            let shown = name.to_uppercase();
            let _ = write!(out, "{shown:<12}");
            for column in COLUMNS {
                let value = self.figures.get(&format!("{name}_ms_{column}"));
                let value = value.map_or_else(|| "-".to_owned(), |&v| number(v));
                let _ = write!(out, "{value:>9}");
            }
            let series = self.over_time.latencies.get(&format!("{name}_ms_p50"));
            let _ = writeln!(out, "   {}", sparkline(series.map_or(&[], Vec::as_slice)));
        }
        let series: Vec<_> = self.over_time.output_tokens_per_s.iter().copied().map(Some).collect();
        let mean = number(self.figures.get("output_tokens_per_s").copied().unwrap_or(0.0));
        let _ = writeln!(out, "{:<12}{mean:>9}{:36}   {}", "output tok/s", "", sparkline(&series));
    }

    /// What a reader should know to take the figures for what they are.
    fn notes(&self, out: &mut String) {
        let tokens = &self.tokens;
        let mut note = |text: String| {
            let _ = write!(out, "\nnote: {text}\n");
        };
        if self.figures.is_empty() {
            return;
        }
        if tokens.counted_by == "chunks" {
            note(
                "the server told no usage: each chunk with content is counted as one token"
                    .to_owned(),
            );
        }
        let per_chunk = tokens.output as f64 / tokens.chunks.max(1) as f64;
        if per_chunk > TOKENS_PER_CHUNK {
            let what =
                "tokens came in each chunk, on average: ITL is between chunks, TPOT counts tokens";
            note(format!("{} {what}", number(per_chunk)));
        }
        if self.load.arrivals == "open" && self.load.max_concurrency.is_some() {
            let (mean, most) = (self.requests.waited_ms_mean, self.requests.waited_ms_max);
            let what = "for one of the places of --max-concurrency before they were sent, which no latency has in it";
            note(format!("requests waited {} ms ({} at most) {what}", number(mean), number(most)));
        }
    }
}

/// `64 each`, or what it was and what was asked.
fn range(least: u64, most: u64, asked: Option<u64>) -> String {
    let range = if least == most {
        format!("{} each", count(least))
    } else {
        format!("{} to {} each", count(least), count(most))
    };
    match asked.filter(|&asked| (least, most) != (asked, asked)) {
        Some(asked) => format!("{range}, asked {}", count(asked)),
        None => range,
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
