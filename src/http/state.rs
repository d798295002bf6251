//! What all handlers share: the configuration, the keys, and the model once it is loaded.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Access;
use super::limits::BodyBudget;
use super::metrics::Histograms;
use super::openai::error::ApiError;
use super::openai::generation::fields::Bounds;
use crate::config::{AuthConfig, HttpConfig, RequestLimits};
use crate::engine::EngineHandle;
use crate::engine::handle::Ended;
use crate::keys::KeyStore;
use crate::model::load::SamplingDefaults;
use crate::telemetry;
use crate::text::Text;
use crate::text::grammar::Grammars;

/// Shared by all requests.
#[derive(Debug)]
pub struct App {
    pub config: HttpConfig,
    pub keys: Arc<KeyStore>,
    pub(super) access: Access,
    pub(super) bodies: BodyBudget,
    pub(super) prometheus: PrometheusHandle,
    /// One token for each API request, until the last byte of its answer was handed over.
    pub(super) requests: TaskTracker,
    /// Balancers shall send no more: the server is about to drain.
    pub(super) leaving: CancellationToken,
    /// No new requests: the server is on its way out.
    pub(super) draining: CancellationToken,
    /// The drain is over: whoever still waits for the engine gets an error now.
    pub(super) abandoned: CancellationToken,
    /// The engine ended by itself.
    failed: AtomicBool,
    served: SetOnce<(Served, Histograms)>,
    /// `/openapi.json` and `/docs`, once somebody asked for them.
    pub(super) description: OnceLock<String>,
    pub(super) reference: OnceLock<String>,
}

/// A loaded model, and what is said of it.
#[derive(Debug)]
pub struct Served {
    pub engine: EngineHandle,
    pub text: Text,
    pub grammars: Grammars,
    /// Names that requests may use; the first is shown. At least one.
    pub names: Vec<String>,
    /// Those of [`Self::names`] whose text prompts are rendered by the chat template.
    pub instruct: BTreeSet<String>,
    /// Longest prompt and completion together, in tokens.
    pub max_model_len: usize,
    /// `system_fingerprint`: hash of model file, quantisation, kernel tier and version.
    pub fingerprint: String,
    /// When the model was loaded, in seconds of Unix time.
    pub created_s: u64,
    /// `--seed`: requests without a seed draw theirs from it.
    pub server_seed: Option<u64>,
    /// What requests that say nothing are sampled with.
    pub defaults: SamplingDefaults,
}

impl Served {
    /// What bounds a request.
    pub(crate) fn bounds(&self, limits: RequestLimits) -> Bounds {
        Bounds { vocab: self.text.vocab(), limits, defaults: self.defaults }
    }
}

/// How a server is told to end. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// First signal: finish what is running.
    pub drain: CancellationToken,
    /// Second signal: end at once.
    pub now: CancellationToken,
}

impl App {
    /// A server without a model yet.
    pub fn new(config: HttpConfig, auth: &AuthConfig, keys: Arc<KeyStore>) -> Arc<Self> {
        Arc::new(Self {
            bodies: BodyBudget::new(config.max_body_bytes),
            config,
            keys,
            access: Access::new(auth),
            prometheus: telemetry::metrics::install(),
            requests: TaskTracker::new(),
            leaving: CancellationToken::new(),
            draining: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            failed: AtomicBool::new(false),
            served: SetOnce::new(),
            description: OnceLock::new(),
            reference: OnceLock::new(),
        })
    }

    /// The model is loaded: requests are answered from here on. Only the first call counts.
    pub fn set_served(&self, served: Served) {
        let histograms = Histograms::new(served.names.first().map_or("", String::as_str));
        // A second model would be a mistake of the caller; the first stays.
        let _ = self.served.set((served, histograms));
    }

    /// The model, or why there is none to use now. Handlers of the API are only called when it is
    /// there, but may be called just before the server begins to drain.
    pub fn served(&self) -> Result<&Served, ApiError> {
        self.model().ok_or(ApiError::ModelLoading)
    }

    pub(super) fn model(&self) -> Option<&Served> {
        self.served.get().map(|(served, _)| served)
    }

    pub(super) fn histograms(&self) -> Option<&Histograms> {
        self.served.get().map(|(_, histograms)| histograms)
    }

    /// Waits for the model, then for the end of its engine.
    pub(super) async fn engine_ended(&self) -> Ended {
        let (served, _) = self.served.wait().await;
        served.engine.finished().await
    }

    /// What stands between the server and new requests.
    pub(super) fn state(&self) -> State {
        let stall_timeout = self.config.engine_stall_timeout;
        match self.model() {
            _ if self.failed.load(Ordering::Acquire) => State::Failed,
            // Draining first: a balancer must see that the server goes, whatever else is true.
            _ if self.draining.is_cancelled() => State::Draining,
            None => State::Loading,
            Some(served) if served.engine.stalled(stall_timeout) => State::Stalled,
            Some(_) => State::Ready,
        }
    }

    /// The engine has work and makes none of it, draining or not.
    pub(super) fn stalled(&self) -> bool {
        self.model().is_some_and(|s| s.engine.stalled(self.config.engine_stall_timeout))
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// One word on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Loading,
    Ready,
    Draining,
    Stalled,
    Failed,
}

impl State {
    /// What a new request is told.
    pub(super) fn refusal(self) -> Option<ApiError> {
        match self {
            Self::Ready => None,
            Self::Loading => Some(ApiError::ModelLoading),
            Self::Draining | Self::Failed => Some(ApiError::ShuttingDown),
            Self::Stalled => Some(ApiError::EngineStalled),
        }
    }
}
