//! Two saved runs side by side.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::report::{FORMAT, Load, Report};
use super::stats::{LATENCIES, RATES};
use super::table::{describe, number};
use crate::cli::Failure;
use crate::cli::output::one_line;

/// Standard errors that a difference must have to be one. There are twenty-odd figures in the table: with two, one of
/// them would be wrong in every comparison.
const BEYOND_NOISE: f64 = 3.0;

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Noise,
    /// A run was too short to tell.
    Unknown,
}

impl Verdict {
    /// Of B against A.
    fn of(a: (f64, Option<f64>), b: (f64, Option<f64>), more_is_better: bool) -> Self {
        let ((a, Some(error_a)), (b, Some(error_b))) = (a, b) else { return Self::Unknown };
        let difference = b - a;
        if difference.abs() <= BEYOND_NOISE * error_a.hypot(error_b) {
            Self::Noise
        } else if (difference > 0.0) == more_is_better {
            Self::Better
        } else {
            Self::Worse
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Noise => "~",
            Self::Unknown => "?",
        }
    }
}

/// The table of both.
pub(super) fn compare(path_a: &Path, path_b: &Path) -> Result<String, Failure> {
    let (a, b) = (read(path_a)?, read(path_b)?);
    let mut out = String::new();
    for (name, path, report) in [("A", path_a, &a), ("B", path_b, &b)] {
        let path = one_line(&path.display().to_string());
        let _ = writeln!(out, "{name}: {path}, {}", report.begun_at);
        for line in describe(&report.load).lines() {
            let _ = writeln!(out, "   {}", one_line(line));
        }
        let (failed, cut) = (report.requests.failed, report.interrupted);
        let mut warn = |text: &str| {
            let _ = writeln!(out, "   note: {text}");
        };
        if failed > 0 {
            warn(&format!("{failed} requests failed, and are in no figure"));
        }
        if cut {
            warn("interrupted");
        }
    }
    for difference in differences(&a.load, &b.load) {
        let _ = writeln!(out, "not the same load: {difference}");
    }
    out.push('\n');
    table(&mut out, &a, &b);
    let _ = writeln!(
        out,
        "\n~ within the noise of the two runs ({BEYOND_NOISE} standard errors)   ? a run too short to tell"
    );
    Ok(out)
}

fn read(path: &Path) -> Result<Report, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| Failure::runtime(format!("cannot read {name}: {e}")))?;
    let fault =
        |e: &str| Failure::usage(format!("{name} is no run that bench saved with --json: {e}"));
    let value: Value = serde_json::from_str(&text).map_err(|e| fault(&e.to_string()))?;
    match value.get("millrace_bench").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => return Err(fault(&format!("its format is {format}, not {FORMAT}"))),
        None => return Err(fault("it has no \"millrace_bench\"")),
    }
    serde_json::from_value(value).map_err(|e| fault(&e.to_string()))
}

/// Members of the load that are not the same. Of the seed, the model and the place nobody expects that.
fn differences(a: &Load, b: &Load) -> Vec<String> {
    let members = |load: &Load| match serde_json::to_value(load) {
        Ok(Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (a, b) = (members(a), members(b));
    let differ = |name: &&String| a.get(*name) != b.get(*name);
    let expected = |name: &&String| !["url", "model", "seed"].contains(&name.as_str());
    let shown = |name: &String| format!("{name} is {} in A, {} in B", a[name], b[name]);
    a.keys().filter(differ).filter(expected).map(shown).collect()
}

fn table(out: &mut String, a: &Report, b: &Report) {
    let _ = writeln!(out, "{:<22}{:>10}{:>10}{:>9}", "", "A", "B", "B / A");
    let mut row = |name: &str, more_is_better: bool| {
        let (Some(&of_a), Some(&of_b)) = (a.figures.get(name), b.figures.get(name)) else { return };
        let errors = [a, b].map(|r| r.standard_errors.get(name).copied());
        let verdict = Verdict::of((of_a, errors[0]), (of_b, errors[1]), more_is_better);
        let ratio = if of_a > 0.0 { format!("{:.3}", of_b / of_a) } else { "-".to_owned() };
        let (of_a, of_b, mark) = (number(of_a), number(of_b), verdict.mark());
        let _ = writeln!(out, "{name:<22}{of_a:>10}{of_b:>10}{ratio:>9}   {mark}");
    };
    for name in RATES {
        row(name, true);
    }
    for name in LATENCIES {
        // A maximum is one request: no part of a run can tell how sure it is.
        for what in ["mean", "p50", "p90", "p99"] {
            row(&format!("{name}_ms_{what}"), false);
        }
    }
    if let (Some(a), Some(b)) = (&a.goodput, &b.goodput)
        && a.targets == b.targets
    {
        let share = |share: f64| format!("{:.1} %", 100.0 * share);
        let (of_a, of_b) = (share(a.share), share(b.share));
        let _ = writeln!(out, "{:<22}{of_a:>10}{of_b:>10}   {}", "goodput", a.targets);
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, Verdict, differences};

    #[test]
    fn a_difference_must_be_beyond_the_noise_of_both() {
        let of = |a, b, more_is_better| Verdict::of(a, b, more_is_better);
        assert_eq!(of((100.0, Some(3.0)), (114.0, Some(4.0)), true), Verdict::Noise);
        assert_eq!(of((100.0, Some(3.0)), (116.0, Some(4.0)), true), Verdict::Better);
        assert_eq!(of((100.0, Some(3.0)), (116.0, Some(4.0)), false), Verdict::Worse);
        assert_eq!(of((100.0, Some(3.0)), (84.0, Some(4.0)), false), Verdict::Better);
        assert_eq!(of((100.0, None), (200.0, Some(0.0)), true), Verdict::Unknown);
        assert_eq!(of((1.0, Some(0.0)), (1.0, Some(0.0)), true), Verdict::Noise);
    }

    #[test]
    fn other_loads_are_told() {
        let a = Load { seed: 1, output_len: 64, ..Load::default() };
        let b = Load { seed: 2, output_len: 32, url: "x".to_owned(), ..Load::default() };
        assert_eq!(differences(&a, &b), ["output_len is 64 in A, 32 in B"]);
    }
}
