//! The load: who asks when, until when, and what came of each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::answer::Answer;
use super::client::Client;
use super::fault::Fault;
use super::options::{Arrivals, Plan};
use super::prompts::{Form, Prompt, Prompts};
use super::random::Rng;

/// How long a client waits that got no answer, times the number of such in a row: a server that is gone
/// must not make it a loop without rest.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The arrivals' own stream of random numbers.
const ARRIVALS: u64 = 1 << 59;

/// A request and what came of it. Times are in seconds since the load began.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) index: usize,
    /// When it was sent.
    pub(super) sent_s: f64,
    /// How much later that was than it arrived: it waited for others to end (`--max-concurrency`).
    pub(super) waited_s: f64,
    pub(super) ended_s: f64,
    pub(super) outcome: Result<Answer, Fault>,
}

/// Everything that came of a load.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) samples: Vec<Sample>,
    /// From the beginning to the end of the last answer.
    pub(super) wall_s: f64,
    /// Requests that an interrupt ended.
    pub(super) unfinished: usize,
    pub(super) is_interrupted: bool,
}

/// What all requests of a load use.
pub(super) struct Work {
    pub(super) client: Client,
    pub(super) prompts: Prompts,
    pub(super) form: Form,
}

impl Work {
    /// One request, outside of any load.
    pub(super) async fn ask(&self, prompt: Prompt) -> Result<Answer, Fault> {
        let body = self.form.body(prompt);
        self.client.ask(self.form.route(), body, Instant::now()).await
    }
}

/// Runs `plan`. `seen` is told of every request that ended; `interrupt` ends all of it.
pub(super) async fn run(
    work: &Arc<Work>,
    plan: Plan,
    mut seen: impl FnMut(&Sample),
    interrupt: impl Future<Output = ()>,
) -> Run {
    let (done, mut samples) = mpsc::unbounded_channel();
    let (begin, begun) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let load = Arc::new(Load { work: work.clone(), plan, begin, begun: begun.clone(), done });
    let mut tasks = JoinSet::new();
    match plan.arrivals {
        Arrivals::Closed { clients } => {
            let clients = plan.requests.map_or(clients, |n| n.min(clients));
            for _ in 0..clients {
                tasks.spawn(load.clone().go_on());
            }
        }
        Arrivals::Open { rate, burstiness, at_once } => {
            tasks.spawn(load.clone().arrive(rate, burstiness, at_once));
        }
    }
    // Only the tasks hold it from here on: the channel ends with the last of them.
    drop(load);
    let mut run = Run::default();
    let mut interrupt = std::pin::pin!(interrupt);
    loop {
        tokio::select! {
            sample = samples.recv() => {
                let Some(sample) = sample else { break };
                seen(&sample);
                run.wall_s = run.wall_s.max(sample.ended_s);
                run.samples.push(sample);
            }
            () = &mut interrupt => {
                run.is_interrupted = true;
                run.unfinished = begun.load(Ordering::Relaxed).saturating_sub(run.samples.len());
                run.wall_s = begin.elapsed().as_secs_f64();
                // Dropping the tasks closes their connections, so that the server stops, too.
                break;
            }
        }
    }
    run.samples.sort_by(|a, b| a.sent_s.total_cmp(&b.sent_s));
    run
}

/// A load that runs.
struct Load {
    work: Arc<Work>,
    plan: Plan,
    begin: Instant,
    /// Requests so far.
    begun: Arc<AtomicUsize>,
    done: mpsc::UnboundedSender<Sample>,
}

impl Load {
    /// The number of the next request; `None` if there is none any more, at `at`.
    fn next(&self, at: Duration) -> Option<usize> {
        if self.plan.duration.is_some_and(|end| at >= end) {
            return None;
        }
        let most = self.plan.requests.unwrap_or(usize::MAX);
        let step = |begun| (begun < most).then_some(begun + 1);
        self.begun.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).ok()
    }

    /// One client of the closed loop.
    async fn go_on(self: Arc<Self>) {
        let mut failed = 0;
        while let Some(index) = self.next(self.begin.elapsed()) {
            if self.ask(index, None).await {
                failed = 0;
            } else {
                failed += 1;
                tokio::time::sleep((PAUSE * failed).min(PAUSE_MAX)).await;
            }
        }
    }

    /// All requests of the open loop: each begins at its time, whatever became of those before.
    async fn arrive(self: Arc<Self>, rate: f64, burstiness: f64, at_once: Option<usize>) {
        let places = at_once.map(|n| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))));
        let mut rng = Rng::nth(self.plan.seed, ARRIVALS);
        let (mut at_s, mut running) = (0.0, JoinSet::new());
        loop {
            let at = Duration::from_secs_f64(at_s);
            let Some(index) = self.next(at) else { break };
            tokio::time::sleep_until((self.begin + at).into()).await;
            let (load, places) = (self.clone(), places.clone());
            running.spawn(async move {
                // Closed never, so there is a place or none is needed.
                let _place = match &places {
                    Some(places) => places.acquire().await.ok(),
                    None => None,
                };
                load.ask(index, Some(at)).await;
            });
            while running.try_join_next().is_some() {}
            // Bounded, as the clock is: 30 years.
            at_s = (at_s + rng.gap_s(rate, burstiness)).min(1e9);
        }
        while running.join_next().await.is_some() {}
    }

    /// Asks, and tells what came of it; whether that was an answer. `arrived` is when it should have been sent.
    async fn ask(&self, index: usize, arrived: Option<Duration>) -> bool {
        // Whatever takes time comes before the clock starts.
        let body = self.work.form.body(self.work.prompts.nth(index));
        let sent = Instant::now();
        let outcome = self.work.client.ask(self.work.form.route(), body, sent).await;
        let sent = sent.duration_since(self.begin);
        let waited = arrived.map_or(Duration::ZERO, |arrived| sent.saturating_sub(arrived));
        let is_answer = outcome.is_ok();
        let sample = Sample {
            index,
            sent_s: sent.as_secs_f64(),
            waited_s: waited.as_secs_f64(),
            ended_s: self.begin.elapsed().as_secs_f64(),
            outcome,
        };
        // Nobody listens any more: an interrupt.
        let _ = self.done.send(sample);
        is_answer
    }
}
