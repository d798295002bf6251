//! How fast it computes: some seconds with the engine that serves, in its own settings.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout_at};

use super::report::Check;
use crate::engine::EngineHandle;
use crate::engine::message::{
    Choice, Event, FailureKind, Namespace, Priority, RequestId, Sampling, Submission, Tenant,
    TokenId,
};
use crate::http::Served;

/// For prompts, one answer, and several answers: five seconds.
const PARTS: [Duration; 3] =
    [Duration::from_millis(1_500), Duration::from_millis(1_750), Duration::from_millis(1_750)];
/// A machine that takes longer for a few tokens is too slow to measure, and to use.
const PATIENCE: Duration = Duration::from_mins(1);
const FIRST_PROMPT: usize = 16;
const LONGEST_PROMPT: usize = 512;
const SEQUENCES: usize = 8;
/// Before an answer.
const SHORT_PROMPT: usize = 16;
/// Tokens a second below which nobody wants to wait for an answer.
const SLOW: f64 = 5.0;
const TEXT: &str = "In the morning the miller opens the race, and the water turns the wheel. What was brought in \
                    sacks leaves as flour: wheat for the town, rye for the villages, and a little oats for the \
                    horses that carry both. ";

/// Tokens a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    prompt: f64,
    prompt_tokens: usize,
    one: f64,
    several: f64,
    sequences: usize,
}

impl Speed {
    pub(super) fn json(&self) -> Value {
        let tenth = |rate: f64| (rate * 10.0).round() / 10.0;
        json!({
            "prompt_tokens_per_s": tenth(self.prompt),
            "prompt_tokens": self.prompt_tokens,
            "decode_tokens_per_s": {"1": tenth(self.one), self.sequences.to_string(): tenth(self.several)},
        })
    }

    pub(super) fn check(&self) -> Check {
        let n = self.sequences;
        let text = format!(
            "prompts {:.0} tokens/s (of {} tokens), one answer {:.1} tokens/s, {n} at once {:.1} tokens/s together",
            self.prompt, self.prompt_tokens, self.one, self.several
        );
        let check = Check::new("speed", text);
        if self.one < SLOW {
            return check.better(
                "Answers come slowly on this machine: take a smaller model or one of fewer bits (such as Q4_K_M), or \
                 more cores.",
            );
        }
        check
    }
}

/// Measures. Takes the five seconds, and what the last step takes.
pub(super) fn measure(served: &Served, max_num_seqs: usize) -> Result<Speed, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| format!("cannot start the runtime: {e}"))?;
    let context = served.max_model_len;
    let bench =
        Bench { engine: &served.engine, text: served.text.encode(TEXT, false, true), context };
    let sequences = SEQUENCES.min(max_num_seqs).min(served.engine.spec().kv_blocks).max(1);
    let speed = runtime.block_on(async {
        let (prompt, prompt_tokens) = bench.prompts(PARTS[0]).await?;
        let one = bench.answers(1, PARTS[1]).await?;
        let several = bench.answers(sequences, PARTS[2]).await?;
        Ok(Speed { prompt, prompt_tokens, one, several, sequences })
    });
    served.engine.stop();
    speed
}

struct Bench<'a> {
    engine: &'a EngineHandle,
    text: Vec<TokenId>,
    context: usize,
}

impl Bench<'_> {
    /// Tokens a second in prompts, and how long those were: as long as fits the time, some of them.
    async fn prompts(&self, part: Duration) -> Result<(f64, usize), String> {
        let begin = Instant::now();
        let most = LONGEST_PROMPT.min(self.context / 2).max(1);
        let mut len = FIRST_PROMPT.min(most);
        let (mut tokens, mut took) = (0, Duration::ZERO);
        loop {
            let started = Instant::now();
            let (_, mut events) = self.submit(1, len, 1)?;
            while !matches!(next(&mut events, started + PATIENCE).await?, Some(Event::Finished(_)))
            {
            }
            let last = started.elapsed();
            let left = part.saturating_sub(begin.elapsed());
            if len < most && left > 3 * last {
                len = (2 * len).min(most);
                continue;
            }
            tokens += len;
            took += last;
            if left < last {
                return Ok((tokens as f64 / took.as_secs_f64().max(f64::EPSILON), len));
            }
        }
    }

    /// Tokens a second in `sequences` answers at once, from the first token on.
    async fn answers(&self, sequences: usize, part: Duration) -> Result<f64, String> {
        let prompt = SHORT_PROMPT.min(self.context / 2).max(1);
        let longest = self.context.saturating_sub(prompt).max(1);
        let (mut tokens, mut took) = (0_u64, Duration::ZERO);
        // Answers that end at the end of the context leave time for more.
        while took < part {
            let (id, mut events) = self.submit(sequences, prompt, longest)?;
            let mut deadline = Instant::now() + PATIENCE;
            let mut first: Option<Instant> = None;
            while let Some(event) =
                next(&mut events, deadline).await.or_else(|late| match first {
                    Some(_) => Ok(None),
                    None => Err(late),
                })?
            {
                match (event, first) {
                    (Event::Token(_), None) => {
                        first = Some(Instant::now());
                        deadline = Instant::now() + part.saturating_sub(took);
                    }
                    (Event::Token(_), Some(_)) => tokens += 1,
                    (Event::Finished(_), _) => break,
                    _ => {}
                }
            }
            took +=
                first.map_or(Duration::ZERO, |first| first.elapsed()).max(Duration::from_micros(1));
            self.engine.abort(id);
        }
        Ok(tokens as f64 / took.as_secs_f64())
    }

    /// Hands over one request of `sequences` answers. None finds what another has computed.
    fn submit(
        &self,
        sequences: usize,
        prompt: usize,
        answer: usize,
    ) -> Result<(RequestId, Receiver<Event>), String> {
        let id = self.engine.next_id();
        let prompt: Arc<[TokenId]> = self.text.iter().copied().cycle().take(prompt).collect();
        // Sampled, since an answer without chance in it repeats itself soon, and what repeats is drafted.
        let sampling = Arc::new(Sampling { ignore_end: true, ..Sampling::default() });
        let choice = |sample: u32| Choice {
            prompt: Arc::clone(&prompt),
            max_new_tokens: u32::try_from(answer).unwrap_or(u32::MAX),
            sampling: Arc::clone(&sampling),
            seed: 1,
            sample,
            stop: None,
            constraint: None,
        };
        let (send, events) = channel(1 << 14);
        let tenant = Tenant(u32::try_from(id.0).unwrap_or(u32::MAX));
        let submission = Submission {
            id,
            namespace: Namespace { tenant, salt: None },
            priority: Priority::default(),
            choices: (0..sequences as u32).map(choice).collect(),
            events: send,
        };
        let refused = |rejected| format!("the engine took no request: {rejected:?}");
        self.engine.submit(submission).map_err(refused)?;
        Ok((id, events))
    }
}

/// The next event; `None` at the end of the channel.
async fn next(events: &mut Receiver<Event>, deadline: Instant) -> Result<Option<Event>, String> {
    match timeout_at(deadline, events.recv()).await {
        Ok(Some(Event::Failed(FailureKind::ShuttingDown)) | None) => {
            Err("the engine ended during the speed test".to_owned())
        }
        Ok(Some(Event::Failed(kind))) => Err(format!("the engine failed a step ({kind:?})")),
        Ok(event) => Ok(event),
        Err(_) => Err(format!("no token came within {} seconds", PATIENCE.as_secs())),
    }
}
