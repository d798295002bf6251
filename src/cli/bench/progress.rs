//! How far a run is: a bar on a terminal, a plain line now and then elsewhere. On stderr, without colours.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::answer::Answer;
use super::load::Sample;
use super::options::Plan;
use super::table::number;
use crate::cli::output::say;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// A run's progress: by requests, or by time if their number has no bound.
pub(super) struct Progress {
    plan: Plan,
    begin: Instant,
    completed: usize,
    failed: usize,
    tokens: u64,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(plan: Plan) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let form = "[{bar:30}] {elapsed} {msg}";
            let style = ProgressStyle::with_template(form);
            let bar = ProgressBar::new(length(&plan));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.with_style(
                style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
            )
        });
        Self { plan, begin: now, completed: 0, failed: 0, tokens: 0, bar, last_line: now }
    }

    /// A request ended.
    pub(super) fn saw(&mut self, sample: &Sample) {
        match &sample.outcome {
            Ok(answer) => {
                self.completed += 1;
                self.tokens += Answer::output_tokens(answer);
            }
            Err(_) => self.failed += 1,
        }
        let elapsed = self.begin.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position(match self.plan.requests {
                Some(_) => (self.completed + self.failed) as u64,
                None => elapsed.as_millis() as u64,
            });
            bar.set_message(self.text(elapsed));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(&format!("{:.0} s: {}", elapsed.as_secs_f64(), self.text(elapsed)));
        }
    }

    fn text(&self, elapsed: Duration) -> String {
        let of = self.plan.requests.map(|n| format!(" of {n}")).unwrap_or_default();
        let failed = match self.failed {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        let rate = number(self.tokens as f64 / elapsed.as_secs_f64().max(1e-3));
        format!("{}{of} requests{failed}, {rate} output tok/s", self.completed)
    }
}

fn length(plan: &Plan) -> u64 {
    let by_time = plan.duration.map_or(1, |d| d.as_millis() as u64);
    plan.requests.map_or(by_time, |n| n as u64)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
