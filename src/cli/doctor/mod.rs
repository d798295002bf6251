//! `millrace doctor`: looks at all that `serve` would need, measures, and says what to change.

mod certificate;
mod files;
mod machine;
mod model;
mod others;
mod report;
mod speed;

use super::flags::Flags;
use super::output::{print, say, set_quiet};
use super::pull::Interrupt;
use super::settings::{self, Layers};
use super::{Failure, Outcome};
use crate::config::Config;
use crate::server::load;
use report::{Check, Report};

/// Options of the command, besides those of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The model, as `serve` would get it
    model: Option<String>,
    /// Load no model and measure no speed
    #[arg(long)]
    no_speed_test: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Prints what it found. Fails if `serve` would not start.
pub(crate) fn run(options: Options) -> Outcome {
    let layers = Layers::read(&options.flags.with_model(options.model));
    let mut doctor = Doctor { report: Report::default(), json: options.json };
    match settings::config(&layers) {
        Ok(config) => {
            set_quiet(config.log.quiet);
            doctor.examine(&config, !options.no_speed_test)?;
        }
        Err(faults) => {
            for fault in faults {
                let change = format!("The configuration is wrong: {fault}.");
                doctor.found(Check::new("setting", fault).must(change))?;
            }
            doctor.all(machine_alone())?;
        }
    }
    doctor.end()
}

/// What stands whatever the configuration is.
fn machine_alone() -> Vec<Check> {
    let all = [Some(machine::processor(None)), Some(machine::memory()), Some(machine::clock())];
    all.into_iter().flatten().collect()
}

struct Doctor {
    report: Report,
    json: bool,
}

impl Doctor {
    fn examine(&mut self, config: &Config, measure: bool) -> Outcome {
        let backend = &config.backend;
        self.found(machine::processor(Some(backend)))?;
        self.found(machine::kernels(backend))?;
        self.all(machine::load())?;
        self.found(machine::memory())?;
        self.all(machine::huge_pages())?;
        self.all(machine::open_files(config))?;
        self.all(machine::processes(backend))?;
        self.found(machine::clock())?;
        self.found(files::address(config))?;
        self.found(files::keys(&config.auth, config.http.host))?;
        self.all(files::tls(config.http.tls.as_ref()))?;
        self.all(others::store(config))?;
        self.all(others::collector(config))?;
        let model = model::find(config);
        let loads = model.loads && crate::model::check_backend(backend).is_ok();
        self.all(model.checks)?;
        if !measure {
            return Ok(());
        }
        if !loads {
            return self.found(Check::new("speed", "not measured: the model cannot be loaded yet"));
        }
        self.measure(config)
    }

    fn measure(&mut self, config: &Config) -> Outcome {
        say("loading the model and measuring for five seconds (--no-speed-test leaves it out)");
        // The log's warnings are not wanted here: what they say was found above.
        let loaded = match load::load(config, &Interrupt::default()) {
            Ok(loaded) => loaded,
            Err(e) => {
                let check = Check::new("speed", format!("the model cannot be loaded: {e:#}"));
                return self.found(check.must("The model cannot be loaded: see the line about the speed, and take another model."));
            }
        };
        match speed::measure(&loaded.served, config.engine.max_num_seqs) {
            Ok(speed) => {
                self.report.speed = Some(speed);
                self.found(speed.check())
            }
            Err(fault) => {
                let change = "The speed test did not end: see the line about the speed, and take a smaller model or other --kernels.";
                self.found(Check::new("speed", fault).must(change))
            }
        }
    }

    fn all(&mut self, checks: impl IntoIterator<Item = Check>) -> Outcome {
        checks.into_iter().try_for_each(|check| self.found(check))
    }

    /// Told at once, since some of it takes a while.
    fn found(&mut self, check: Check) -> Outcome {
        let line = check.line();
        self.report.checks.push(check);
        if self.json { Ok(()) } else { out(&line) }
    }

    fn end(self) -> Outcome {
        if self.json {
            out(&format!("{:#}\n", self.report.json()))?;
        } else {
            out(&self.report.conclusion())?;
        }
        if self.report.would_serve() { Ok(()) } else { Err(Failure::Told) }
    }
}

fn out(text: &str) -> Outcome {
    print(text).map_err(|e| Failure::runtime(format!("cannot print: {e}")))
}
