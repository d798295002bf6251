//! `millrace bench`: load on an OpenAI-compatible server, and what it says of it.
//!
//! Nothing here knows the server's insides: it is a client as any other.

mod answer;
mod client;
mod compare;
mod fault;
mod file;
mod goodput;
mod load;
mod local;
mod options;
mod progress;
mod prompts;
mod random;
mod report;
mod sse;
mod stats;
mod table;
mod target;
mod words;

use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::fault::{Fault, Kind};
use self::file::Output;
use self::load::{Run, Work};
use self::local::Local;
pub(crate) use self::options::Options;
use self::options::{Arrivals, Plan};
use self::progress::Progress;
use self::prompts::{Form, Prompts, Scale, Words, probe};
use self::report::{Load, Report};
use self::target::Target;
use super::output::{print, say};
use super::serve::Signals;
use super::{Failure, Outcome};

/// Enough for tens of thousands of chunks a second; the other cores may be the server's.
const THREADS: usize = 2;
/// Words of the first two prompts that find out how the server counts words.
const PROBE_WORDS: [usize; 2] = [8, 40];

/// Runs the load and prints the table.
pub(crate) fn run(options: &Options) -> Outcome {
    if let Some([a, b]) = options.compare.as_deref() {
        return show(&compare::compare(a, b)?);
    }
    if options.url.is_none() && options.served.is_none() {
        let what = "what is to be measured? Give --url URL of a running server, or a MODEL to serve for the run";
        return Err(Failure::usage(what));
    }
    let seed = options.seed.map_or_else(fresh_seed, Ok)?;
    let prompts = Prompts::of(options, seed)?;
    let output = options.json.as_deref().map(Output::create).transpose()?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("bench")
        .enable_all()
        .build()
        .map_err(|e| Failure::runtime(format!("cannot start the runtime: {e}")))?;
    let report = runtime.block_on(measure(options, prompts, seed));
    // Whatever an interrupt left running must not be waited for, such as the look-up of a name.
    runtime.shutdown_background();
    let report = report?;
    let saved = output.map_or(Ok(()), |output| save(output, &report));
    show(&report.table())?;
    saved?;
    verdict(&report)
}

/// Nothing measured is a fault; failures among answers are in the table.
fn verdict(report: &Report) -> Outcome {
    let (completed, failed) = (report.requests.completed, report.requests.failed);
    if report.interrupted {
        let what = format!("interrupted: the figures are those of {completed} requests");
        return Err(Failure::runtime(what));
    }
    match report.errors.first() {
        Some(first) if completed == 0 => {
            let (kind, message) = (&first.kind, &first.message);
            Err(Failure::runtime(format!("all {failed} requests failed, by {kind}: {message}")))
        }
        _ => Ok(()),
    }
}

fn show(text: &str) -> Outcome {
    print(text).map_err(|e| Failure::runtime(e.to_string()))
}

fn save(output: Output, report: &Report) -> Outcome {
    let text = serde_json::to_string_pretty(report);
    let text = text.map_err(|e| Failure::runtime(format!("--json: {e}")))?;
    output.save(&format!("{text}\n"))
}

fn fresh_seed() -> Result<u64, Failure> {
    // Short enough to type, and exact in every reader of JSON.
    let seed = getrandom::u32().map_err(|e| Failure::runtime(format!("no random seed: {e}")))?;
    Ok(u64::from(seed))
}

/// The soft limit of open files is often 1,024, which a thousand clients pass; the hard one is for that.
fn raise_descriptor_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // Without it the clients get by with fewer, or their errors say so.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

async fn measure(options: &Options, prompts: Prompts, seed: u64) -> Result<Report, Failure> {
    let interrupt = interrupt()?;
    let early = || Failure::runtime("interrupted before the load began");
    let (mut local, work) = tokio::select! {
        prepared = prepare(options, prompts, seed) => prepared?,
        () = interrupt.cancelled() => return Err(early()),
    };
    let plan = options.plan(work.prompts.lines(), seed);
    let begun_at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let mut progress = Progress::new(plan);
    let run = load::run(&work, plan, |sample| progress.saw(sample), interrupt.cancelled()).await;
    drop(progress);
    if let Some(end) = local.as_mut().and_then(Local::end) {
        say(&format!("error: {end}"));
    }
    Ok(report(options, &work, plan, &run, begun_at))
}

/// SIGINT and SIGTERM, from here on.
fn interrupt() -> Result<CancellationToken, Failure> {
    let fault = |e| Failure::runtime(format!("cannot handle signals: {e}"));
    let mut signals = Signals::new().map_err(fault)?;
    let token = CancellationToken::new();
    let told = token.clone();
    tokio::spawn(async move {
        signals.next().await;
        told.cancel();
    });
    Ok(token)
}

/// A server that answers, and everything that requests to it need.
async fn prepare(
    options: &Options,
    mut prompts: Prompts,
    seed: u64,
) -> Result<(Option<Local>, Arc<Work>), Failure> {
    let local = match &options.served {
        Some(model) => Some(Local::start(model, &options.for_server).await?),
        None => None,
    };
    let target = match (&local, &options.url) {
        (Some(local), _) => Target::new(&local.url, Some(&local.key))?,
        (None, Some(url)) => Target::new(url, options.key()?.as_deref())?,
        (None, None) => return Err(Failure::usage("neither --url nor a MODEL")),
    };
    let explain = |fault| explain(fault, options);
    let client = Client::new(target, options.timeout()).await.map_err(explain)?;
    let model = match &options.model {
        Some(model) => model.clone(),
        None => first_model(&client).await.map_err(explain)?,
    };
    let form = Form::of(options, model);
    let mut work = Work { client, prompts: Prompts::File(Vec::new()), form };
    if let Prompts::Words(words) = &mut prompts {
        words.scale = scale(&work, words).await.map_err(explain)?;
    }
    work.prompts = prompts;
    warm_up(&work, options.num_warmups, options.plan(None, seed)).await.map_err(explain)?;
    Ok((local, Arc::new(work)))
}

/// What to do about a fault before the load.
fn explain(fault: Fault, options: &Options) -> Failure {
    let Fault { kind, message } = fault;
    let advice = match kind {
        Kind::Http(401 | 403) => format!(
            "; set {} to one of the server's keys, or name the variable that has it by --api-key-env",
            options.api_key_env
        ),
        Kind::Http(404) => "; check --url, and name the model by --model".to_owned(),
        _ => String::new(),
    };
    Failure::runtime(format!("{message}{advice}"))
}

/// The server's own name for what it serves.
async fn first_model(client: &Client) -> Result<String, Fault> {
    let models = client.get("/models").await?;
    let name = models["data"][0]["id"].as_str().map(str::to_owned);
    let what = "the list of /v1/models is empty: name the model by --model";
    name.ok_or_else(|| Fault::new(Kind::BadStream, what))
}

/// Asks with few words, with more, and with as many as the prompts will have, how many tokens those are.
async fn scale(work: &Work, words: &Words) -> Result<Scale, Fault> {
    let tokens = async |words_asked: usize| -> Result<Option<u64>, Fault> {
        let answer = work.ask(probe(words.seed, words_asked)).await?;
        Ok(answer.usage.map(|u| u.prompt))
    };
    let [few, more] = PROBE_WORDS;
    let (Some(of_few), Some(of_more)) = (tokens(few).await?, tokens(more).await?) else {
        return Ok(Scale::default());
    };
    let rough = Scale::through((few, of_few), (more, of_more));
    let all = rough.words(words.prefix_tokens + words.input_tokens);
    if all <= more {
        return Ok(rough);
    }
    let of_all = tokens(all).await?;
    Ok(of_all.map_or(rough, |of_all| Scale::through((few, of_few), (all, of_all))))
}

/// Requests that do not count, as many at once as the load will have.
async fn warm_up(work: &Work, requests: usize, plan: Plan) -> Result<(), Fault> {
    let at_once = match plan.arrivals {
        Arrivals::Closed { clients } => clients,
        Arrivals::Open { at_once, .. } => at_once.unwrap_or(requests),
    };
    let all: Vec<usize> = (0..requests).collect();
    for some in all.chunks(at_once.max(1)) {
        let asked = some.iter().map(|&i| work.ask(work.prompts.warmup(i, plan.seed)));
        for outcome in futures_util::future::join_all(asked).await {
            outcome?;
        }
    }
    Ok(())
}

fn report(options: &Options, work: &Work, plan: Plan, run: &Run, begun_at: String) -> Report {
    let (arrivals, request_rate, burstiness, max_concurrency) = match plan.arrivals {
        Arrivals::Closed { clients } => ("closed", None, None, Some(clients)),
        Arrivals::Open { rate, burstiness, at_once } => {
            ("open", Some(rate), Some(burstiness), at_once)
        }
    };
    let prompts = options.prompts.as_ref().map(|path| path.display().to_string());
    let load = Load {
        url: work.client.target.base.clone(),
        model: work.form.model.clone(),
        endpoint: if work.form.chat { "chat" } else { "completions" }.to_owned(),
        arrivals: arrivals.to_owned(),
        max_concurrency,
        request_rate,
        burstiness,
        num_prompts: plan.requests,
        duration_s: options.duration_s,
        num_warmups: options.num_warmups,
        input_len: prompts.is_none().then(|| options.input_tokens()),
        prompts: prompts.unwrap_or_else(|| "words".to_owned()),
        prefix_len: options.prefix_len,
        num_prefixes: options.num_prefixes.get(),
        output_len: work.form.output_tokens,
        ignore_eos: work.form.ignore_eos,
        temperature: work.form.temperature,
        extra_body: work.form.extra_body.clone(),
        seed: plan.seed,
    };
    let mut report = Report::of(run, load, options.goodput, begun_at);
    if options.save_detailed {
        report.samples = report::rows(&run.samples);
    }
    report
}
