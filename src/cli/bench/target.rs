//! Where requests go: a base URL, a key, and a path.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use crate::cli::Failure;

/// A server.
#[derive(Clone)]
pub(super) struct Target {
    /// As it is shown: scheme, host and port, and the path up to `/v1`.
    pub(super) base: String,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Up to `/v1`.
    path: String,
    pub(super) headers: HeaderMap,
    /// With the name that the certificate must be for.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Of a base URL, with or without `/v1`, and a key.
    pub(super) fn new(url: &str, key: Option<&str>) -> Result<Self, Failure> {
        let place = Place::parse(url).map_err(Failure::usage)?;
        let fault = |what: String| Failure::usage(format!("--url: {url:?}: {what}"));
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&place.authority).map_err(|e| fault(e.to_string()))?;
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        let agent = concat!("millrace-bench/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(key) = key {
            let value = HeaderValue::from_str(&format!("Bearer {key}"));
            let mut value = value.map_err(|_| Failure::usage("the key is no header's value"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let tls = if place.tls {
            let name =
                ServerName::try_from(place.host.clone()).map_err(|e| fault(e.to_string()))?;
            Some((connector().map_err(|e| fault(e.to_string()))?, name))
        } else {
            None
        };
        let scheme = if place.tls { "https" } else { "http" };
        Ok(Self {
            base: format!("{scheme}://{}{}", place.authority, place.path),
            host: place.host,
            port: place.port,
            path: place.path,
            headers,
            tls,
        })
    }

    /// The path of a route below `/v1`.
    pub(super) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.path)
    }
}

/// TLS as `pull` has it: this machine's own authorities (on Linux, `SSL_CERT_FILE` names others).
fn connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(provider.clone())?);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Place {
    fn parse(url: &str) -> Result<Self, String> {
        let form = || format!("--url: {url:?} is not a URL such as http://127.0.0.1:8000");
        let uri: http::Uri = url.parse().map_err(|_| form())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(form()),
        };
        let authority = uri.authority().ok_or_else(form)?;
        if authority.as_str().contains('@') {
            // Not shown: it may be a secret.
            let where_to = "a key belongs into the environment (OPENAI_API_KEY), not into the URL";
            return Err(format!("--url: {where_to}"));
        }
        if uri.query().is_some() {
            return Err(format!("--url: {url:?}: a base URL has no query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty()
            || (authority.as_str().contains(':')
                && authority.port().is_none()
                && !host.contains(':'))
        {
            return Err(form());
        }
        let path = uri.path().trim_end_matches('/');
        let path = ["/chat/completions", "/completions", "/models"]
            .iter()
            .find_map(|route| path.strip_suffix(route))
            .unwrap_or(path);
        let path = path.trim_end_matches('/');
        let path = if path.ends_with("/v1") { path.to_owned() } else { format!("{path}/v1") };
        Ok(Self {
            tls,
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Target};

    #[test]
    fn a_base_url_may_end_with_v1_or_not() {
        let path = |url: &str| Place::parse(url).unwrap().path;
        for url in [
            "http://a",
            "http://a/",
            "http://a/v1",
            "http://a/v1/",
            "http://a/v1/completions",
            "http://a/v1/chat/completions",
        ] {
            assert_eq!(path(url), "/v1", "{url}");
        }
        assert_eq!(path("https://a.b/openai/v1"), "/openai/v1");
        assert_eq!(path("https://a.b/proxy"), "/proxy/v1");
    }

    #[test]
    fn hosts_and_ports() {
        let place = |url: &str| {
            let place = Place::parse(url).unwrap();
            (place.tls, place.host, place.port, place.authority)
        };
        let is = |tls, host: &str, port, authority: &str| {
            (tls, host.to_owned(), port, authority.to_owned())
        };
        assert_eq!(place("http://127.0.0.1:8000"), is(false, "127.0.0.1", 8000, "127.0.0.1:8000"));
        assert_eq!(place("https://a.b/v1"), is(true, "a.b", 443, "a.b"));
        assert_eq!(place("http://[::1]:9"), is(false, "::1", 9, "[::1]:9"));
        for wrong in ["a", "127.0.0.1:8000", "ftp://a", "http://", "http://a:99999", "http://a/?b"]
        {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_in_a_url_is_refused_and_not_shown() {
        let fault = Target::new("http://sk-secret@a", None).err().unwrap().to_string();
        assert!(fault.contains("OPENAI_API_KEY") && !fault.contains("sk-secret"), "{fault}");
    }
}
