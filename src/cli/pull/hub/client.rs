//! Requests to a hub: redirects, the token, and what is worth trying again.
//!
//! Redirects are followed here and not by the library, because a token goes to the endpoint and to
//! nobody else, and because where the hub sends one says what the file is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, IF_RANGE, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderValue, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, Proxy, ProxyProtocol, RequestBuilder};

use super::place::{Endpoint, Origin, Place};
use crate::cli::output::{one_line, say};
use crate::cli::pull::{Interrupt, PullError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From the request until the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// A download that brings nothing for this long counts as cut.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
/// Those that the library reads.
const PROXY_VARIABLES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// Tries without progress, after the first.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest that a hub may ask to be left alone.
const MAX_WAIT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// It would fail again.
    Final(PullError),
    /// It may pass, perhaps after the time that the hub asks for.
    Passing(PullError, Option<Duration>),
}

impl Fault {
    pub(super) fn last(reason: String) -> Self {
        Self::Final(PullError::new(reason))
    }

    pub(super) fn passing(reason: String) -> Self {
        Self::Passing(PullError::new(reason), None)
    }
}

impl From<PullError> for Fault {
    fn from(e: PullError) -> Self {
        Self::Final(e)
    }
}

impl From<Fault> for PullError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Final(e) | Fault::Passing(e, _) => e,
        }
    }
}

/// How often to try, and how long to wait in between.
pub(super) struct Patience<'a> {
    interrupt: &'a Interrupt,
    tries: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(interrupt: &'a Interrupt) -> Self {
        Self { interrupt, tries: 0 }
    }

    /// There was progress.
    pub(super) fn renew(&mut self) {
        self.tries = 0;
    }

    /// Waits before the next try; gives the fault back where there is no point in one.
    pub(super) fn after(&mut self, fault: Fault) -> Result<(), Fault> {
        let Fault::Passing(e, asked) = fault else { return Err(fault) };
        if self.tries == TRIES {
            return Err(Fault::Passing(e, None));
        }
        say(&format!("{}: trying again", one_line(&e.to_string())));
        let wait = FIRST_WAIT * 2_u32.pow(self.tries);
        self.tries += 1;
        let until = Instant::now() + asked.map_or(wait, |asked| asked.clamp(wait, MAX_WAIT));
        loop {
            self.interrupt.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// Does `what` until it succeeds or there is no point in it.
pub(super) fn retried<T>(
    interrupt: &Interrupt,
    mut what: impl FnMut() -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut patience = Patience::new(interrupt);
    loop {
        match what() {
            Ok(value) => return Ok(value),
            Err(fault) => patience.after(fault)?,
        }
    }
}

/// Bytes of a file, up to the one before `to`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What tells a file that one host sends from another under the same address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validator {
    pub(super) origin: Origin,
    /// Its mark there, which is not that of the hub.
    pub(super) etag: HeaderValue,
}

/// A hub, and the leave to use it.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    pub(super) endpoint: Endpoint,
    authorization: Option<HeaderValue>,
}

impl Client {
    pub(super) fn new(place: &Place) -> Result<Self, PullError> {
        let authorization = place.authorization()?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = Agent::config_builder()
            .tls_config(tls.build())
            // A proxy elsewhere cannot know this machine's own addresses, and in clear it would read the token.
            .proxy(if place.endpoint.origin.is_loopback() { None } else { proxy()? })
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT));
        let agent = config.build().new_agent();
        Ok(Self { agent, endpoint: place.endpoint.clone(), authorization })
    }

    pub(super) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// `GET` of a path at the endpoint, from byte `from` on.
    pub(super) fn get(&self, path: &str, from: u64) -> Result<Response<Body>, Fault> {
        self.follow(
            path,
            |_| false,
            |uri| {
                let request = self.agent.get(uri);
                if from == 0 { request } else { request.header(RANGE, format!("bytes={from}-")) }
            },
        )
    }

    /// `GET` of a part of a path at the endpoint; of all of it if that is no longer the file of `validator`.
    pub(super) fn get_part(
        &self,
        path: &str,
        Span { from, to }: Span,
        validator: Option<&Validator>,
    ) -> Result<Response<Body>, Fault> {
        self.follow(
            path,
            |_| false,
            |uri| {
                let origin = Origin::of(&uri);
                let last = to.saturating_sub(1);
                let request = self.agent.get(uri).header(RANGE, format!("bytes={from}-{last}"));
                match validator.filter(|known| Some(&known.origin) == origin.as_ref()) {
                    Some(known) => request.header(IF_RANGE, known.etag.clone()),
                    None => request,
                }
            },
        )
    }

    /// `HEAD` of a path at the endpoint, up to the first answer for which `is_enough`.
    pub(super) fn head(
        &self,
        path: &str,
        is_enough: impl Fn(&Response<Body>) -> bool,
    ) -> Result<Response<Body>, Fault> {
        self.follow(path, is_enough, |uri| self.agent.head(uri))
    }

    fn follow(
        &self,
        path: &str,
        is_enough: impl Fn(&Response<Body>) -> bool,
        request: impl Fn(Uri) -> RequestBuilder<WithoutBody>,
    ) -> Result<Response<Body>, Fault> {
        let url = format!("{}{path}", self.endpoint.url);
        let mut uri: Uri =
            url.parse().map_err(|e| Fault::last(format!("{url:?} is no address: {e}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&uri)
                .ok_or_else(|| Fault::last(format!("{uri} is no address of the web")))?;
            let mut request =
                request(uri.clone()).header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(authorization) = self.authorization.as_ref()
                && origin == self.endpoint.origin
            {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let mut response = request.call().map_err(|e| fault(&origin, &e))?;
            let status = response.status();
            if matches!(status.as_u16(), 408 | 429 | 500..=599) {
                let after = response.headers().get(RETRY_AFTER).and_then(seconds);
                let e = PullError::new(format!("{origin} answers {status}"));
                return Err(Fault::Passing(e, after));
            }
            if !status.is_redirection() || is_enough(&response) {
                response.extensions_mut().insert(origin);
                return Ok(response);
            }
            uri = redirected(&uri, &origin, response.headers().get(LOCATION))?;
        }
        Err(Fault::last(format!("{} sends from one address to the next", self.endpoint.origin)))
    }
}

/// Who gave this answer: the hub, or a storage that it sends to.
pub(super) fn answered_by(response: &Response<Body>) -> Option<&Origin> {
    response.extensions().get()
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// That of the environment. One that cannot be used is said, and not passed over.
fn proxy() -> Result<Option<Proxy>, PullError> {
    use ProxyProtocol::{Http, Https};
    match Proxy::try_from_env() {
        Some(proxy) if !matches!(proxy.protocol(), Http | Https) => Err(PullError::new(
            "the proxy of the environment is a SOCKS proxy, and only http proxies can be used: set \
             ALL_PROXY to one"
                .to_owned(),
        )),
        None => match PROXY_VARIABLES.iter().find(|name| is_set(name)) {
            // It is not shown: a proxy's address may hold a password.
            Some(name) => Err(PullError::new(format!("{name} is not the address of a proxy"))),
            None => Ok(None),
        },
        proxy => Ok(proxy),
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Where a redirect leads.
pub(super) fn redirected(
    uri: &Uri,
    origin: &Origin,
    location: Option<&HeaderValue>,
) -> Result<Uri, Fault> {
    let wrong = |what: &str| Fault::last(format!("{origin} sends elsewhere, and that {what}"));
    let not_web = || wrong("is no address of the web");
    let location = location.and_then(|l| l.to_str().ok()).ok_or_else(not_web)?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let absolute = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{host}{location}")
    } else {
        location.to_owned()
    };
    let next: Uri = absolute.parse().map_err(|_| not_web())?;
    let there = Origin::of(&next).ok_or_else(not_web)?;
    if origin.is_https && !there.is_https {
        return Err(wrong("leads from an encrypted connection to a plain one"));
    }
    Ok(next)
}

/// What the library says, in words of ours, and whether to try again.
fn fault(origin: &Origin, e: &ureq::Error) -> Fault {
    if let Some(reason) = insecurity(e) {
        return Fault::last(format!("no secure connection to {origin}: {reason}"));
    }
    match e {
        ureq::Error::Io(e) => Fault::passing(format!("no connection to {origin}: {e}")),
        ureq::Error::Timeout(_) => Fault::passing(format!("{origin} does not answer in time")),
        ureq::Error::HostNotFound => Fault::passing(format!("no address of {origin} is known")),
        ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            Fault::passing(format!("no answer from {origin}: {e}"))
        }
        ureq::Error::ConnectProxyFailed(reason) => {
            Fault::last(format!("the proxy does not connect to {origin}: {reason}"))
        }
        e => Fault::last(format!("cannot ask {origin}: {e}")),
    }
}

/// What is wrong with the encryption, if that is the fault: a certificate, mostly.
fn insecurity(e: &ureq::Error) -> Option<String> {
    match e {
        ureq::Error::Rustls(e) => Some(e.to_string()),
        ureq::Error::Tls(e) => Some((*e).to_owned()),
        ureq::Error::TlsRequired => Some(e.to_string()),
        ureq::Error::Io(e) => e.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string),
        _ => None,
    }
}
