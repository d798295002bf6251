//! What was found, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::speed::Speed;
use crate::cli::output::one_line;

/// How well it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Fine,
    /// It would serve, but not as well as it could.
    Worse,
    /// It would not serve.
    Broken,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Worse => "warn",
            Self::Broken => "fail",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Fine => "  ",
            Self::Worse => "! ",
            Self::Broken => "X ",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    /// One line.
    pub(super) text: String,
    /// Sentences with the option or the command in them.
    pub(super) change: Vec<String>,
    /// Numbers and names for programs.
    facts: Map<String, Value>,
}

impl Check {
    pub(super) fn new(name: &'static str, text: impl Into<String>) -> Self {
        let (state, text) = (State::Fine, text.into());
        Self { name, state, text, change: Vec::new(), facts: Map::new() }
    }

    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// It could be better so.
    pub(super) fn better(self, change: impl Into<String>) -> Self {
        self.with(State::Worse, change.into())
    }

    /// It must be changed so.
    pub(super) fn must(self, change: impl Into<String>) -> Self {
        self.with(State::Broken, change.into())
    }

    fn with(mut self, state: State, change: String) -> Self {
        self.state = self.state.max(state);
        self.change.push(change);
        self
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        format!("{}{:<13} {}\n", self.state.mark(), self.name, one_line(&self.text))
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "name": self.name, "state": self.state.name(), "text": self.text, "change": self.change,
        });
        if !self.facts.is_empty() {
            value["facts"] = Value::Object(self.facts.clone());
        }
        value
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
    pub(super) speed: Option<Speed>,
}

impl Report {
    pub(super) fn would_serve(&self) -> bool {
        self.checks.iter().all(|check| check.state < State::Broken)
    }

    /// What must be changed stands first.
    fn change(&self) -> Vec<&str> {
        let of = |state: State| self.checks.iter().filter(move |c| c.state == state);
        let checks = of(State::Broken).chain(of(State::Worse));
        checks.flat_map(|c| c.change.iter().map(String::as_str)).collect()
    }

    /// The end of the text: what to change.
    pub(super) fn conclusion(&self) -> String {
        let change = self.change();
        let mut out = String::from(match (self.would_serve(), change.is_empty()) {
            (false, _) => "\nIt would not serve as it is. What to change:\n",
            (true, false) => "\nIt would serve. What to change:\n",
            (true, true) => "\nIt would serve: nothing to change.\n",
        });
        for (i, change) in change.iter().enumerate() {
            let _ = writeln!(out, "{:>3}. {}", i + 1, one_line(change));
        }
        out
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "would_serve": self.would_serve(),
            "checks": self.checks.iter().map(Check::json).collect::<Vec<_>>(),
            "speed": self.speed.as_ref().map(Speed::json),
            "change": self.change(),
        })
    }
}

/// As people read it.
pub(super) fn size(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib < 1.0 { format!("{:.0} MiB", gib * 1024.0) } else { format!("{gib:.1} GiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_changed_comes_first_and_decides() {
        let mut report = Report::default();
        assert!(report.would_serve());
        assert_eq!(report.conclusion(), "\nIt would serve: nothing to change.\n");
        report.checks.push(Check::new("threads", "many").better("Give --threads 2."));
        assert!(report.would_serve() && report.conclusion().contains("It would serve. What"));
        report.checks.push(Check::new("port", "taken").must("Give --port 0.").better("Else."));
        assert!(!report.would_serve());
        assert_eq!(report.change(), ["Give --port 0.", "Else.", "Give --threads 2."]);
        assert!(
            report
                .conclusion()
                .ends_with("  1. Give --port 0.\n  2. Else.\n  3. Give --threads 2.\n")
        );
        let json = report.json();
        assert_eq!(
            (&json["would_serve"], &json["checks"][1]["state"]),
            (&json!(false), &json!("fail"))
        );
        assert!(report.checks[1].line().starts_with("X port "));
    }
}
