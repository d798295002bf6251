//! HTTP for the exporter: the client that fetches models, so that TLS and its roots are the same. It blocks, on
//! the exporter's own thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::export::Losses;

/// One request to the collector, from its name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Client {
    /// With the proxy of the environment.
    agent: Agent,
    /// For this machine's own addresses, which a proxy elsewhere cannot know.
    local: Agent,
    losses: Arc<Losses>,
}

impl Client {
    pub(super) fn new(losses: Arc<Losses>) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = || {
            Agent::config_builder()
                .tls_config(tls.clone())
                .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
                // Spans, and the headers that let one in, go where they were told to, and nowhere else.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .timeout_global(Some(TIMEOUT))
        };
        let agent = config().build().new_agent();
        let local = config().proxy(None).build().new_agent();
        Self { agent, local, losses }
    }

    fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let host = request.uri().host().unwrap_or_default();
        let agent = if is_local(host) { &self.local } else { &self.agent };
        let (parts, mut body) = agent.run(request.map(|body| body.to_vec()))?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl HttpClient for Client {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            self.post(request).map_err(|error| {
                // OpenTelemetry keeps the reason to itself.
                self.losses.unreachable(&match &error {
                    ureq::Error::Timeout(_) => "no answer in time".to_owned(),
                    error => error.to_string(),
                });
                error.into()
            })
        })
    }
}
