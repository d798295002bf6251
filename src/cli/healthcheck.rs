//! `millrace healthcheck`: is the server ready? Small enough for an image without curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::output::{one_line, print};
use super::settings::{self, CommandLine, Layers};
use super::{Failure, Outcome};

const TIMEOUT: Duration = Duration::from_secs(2);
/// More than any answer of `/health/ready`.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The server's URL [default: where `serve` would tell its health]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Where a server tells its health.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// IPv6 in brackets.
    host: String,
    port: u16,
    tls: bool,
}

/// Asks once. Prints one line; fails unless the answer is 200.
pub(crate) fn run(options: &Options) -> Outcome {
    let server = match &options.url {
        Some(url) => parse_url(url).map_err(Failure::usage)?,
        None => own_address()?,
    };
    let place = format!("{}:{}", server.host, server.port);
    let (status, body) =
        server.ask().map_err(|e| Failure::runtime(format!("not ready: {place}: {}", told(&e))))?;
    if status != 200 {
        let body = one_line(&body);
        return Err(Failure::runtime(format!("not ready: {place} answered {status} {body}")));
    }
    print(&format!("ready: {place}\n")).map_err(|e| Failure::runtime(e.to_string()))
}

fn told(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there: start `millrace serve`, or name its address with --url"
                .to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} seconds", TIMEOUT.as_secs())
        }
        _ => e.to_string(),
    }
}

/// The address at which the server would tell its health here; one that means "every address" is reached by loopback.
fn own_address() -> Result<Server, Failure> {
    let layers = Layers::read(&CommandLine::default());
    let (host, port, tls) = settings::health_address(&layers).map_err(Failure::Usage)?;
    let host = match host {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let host = SocketAddr::new(host, 0).to_string().trim_end_matches(":0").to_owned();
    Ok(Server { host, port, tls })
}

/// Of an `http` or `https` URL; its path does not matter.
fn parse_url(url: &str) -> Result<Server, String> {
    let form = || format!("--url: {url:?} is not a URL such as http://127.0.0.1:8000");
    let (rest, tls) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err(form()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| form())?),
        _ => (authority, if tls { 443 } else { 80 }),
    };
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(fine) {
        return Err(form());
    }
    Ok(Server { host: host.to_owned(), port, tls })
}

impl Server {
    fn ask(&self) -> io::Result<(u16, String)> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut last = io::Error::other("no address");
        for address in (bare, self.port).to_socket_addrs()? {
            match self.ask_at(address, bare) {
                Ok(answer) => return Ok(answer),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn ask_at(&self, address: SocketAddr, name: &str) -> io::Result<(u16, String)> {
        let socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        if !self.tls {
            return self.ask_over(socket);
        }
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(trusting()?), name);
        self.ask_over(StreamOwned::new(connection.map_err(io::Error::other)?, socket))
    }

    fn ask_over(&self, mut stream: impl Read + Write) -> io::Result<(u16, String)> {
        let Self { host, port, .. } = self;
        write!(
            stream,
            "GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\
             User-Agent: millrace-healthcheck\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        match stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer) {
            // A server may end without TLS's own goodbye; the status has come by then, or is missed below.
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => {}
        }
        let answer = String::from_utf8_lossy(&answer);
        let bad = || io::Error::other("the answer is not HTTP");
        let status = answer.strip_prefix("HTTP/1.1 ").and_then(|s| s.get(..3)).ok_or_else(bad)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.parse().map_err(|_| bad())?, body.to_owned()))
    }
}

/// Takes any certificate: the question is whether this machine's server is ready, whatever name its
/// certificate is for, and there is no secret in it.
fn trusting() -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let any = Arc::new(AnyCertificate(provider.signature_verification_algorithms));
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(io::Error::other)?.dangerous().with_custom_certificate_verifier(any);
    Ok(config.with_no_client_auth())
}

#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Server, parse_url};

    #[test]
    fn urls() {
        let server =
            |host: &str, port: u16, tls: bool| Ok(Server { host: host.to_owned(), port, tls });
        assert_eq!(parse_url("http://127.0.0.1:8000"), server("127.0.0.1", 8000, false));
        assert_eq!(parse_url("http://a.b/health"), server("a.b", 80, false));
        assert_eq!(parse_url("https://a.b"), server("a.b", 443, true));
        assert_eq!(parse_url("http://[::1]:9/x"), server("[::1]", 9, false));
        for wrong in
            ["127.0.0.1", "ftp://a", "http://", "http://a:b", "http://a b/", "http://a:99999"]
        {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
