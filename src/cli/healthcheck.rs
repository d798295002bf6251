//! `millrace healthcheck`: is the server ready? Small enough for an image without curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::output::{one_line, print};
use super::settings::{self, CommandLine, Layers};
use super::{Failure, Outcome};

const TIMEOUT: Duration = Duration::from_secs(2);
/// More than any answer of `/health/ready`.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The server's URL [default: where `serve` would listen]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Asks once. Prints one line; fails unless the answer is 200.
pub(crate) fn run(options: &Options) -> Outcome {
    let (host, port) = match &options.url {
        Some(url) => parse_url(url).map_err(Failure::usage)?,
        None => own_address()?,
    };
    let place = format!("{host}:{port}");
    let (status, body) =
        ask(&host, port).map_err(|e| Failure::runtime(format!("not ready: {place}: {e}")))?;
    if status != 200 {
        let body = one_line(&body);
        return Err(Failure::runtime(format!("not ready: {place} answered {status} {body}")));
    }
    print(&format!("ready: {place}\n")).map_err(|e| Failure::runtime(e.to_string()))
}

/// The address the server would use here; one that means "every address" is reached by loopback.
fn own_address() -> Result<(String, u16), Failure> {
    let layers = Layers::read(&CommandLine::default());
    let (host, port) = settings::address(&layers).map_err(Failure::Usage)?;
    let host = match host {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok((SocketAddr::new(host, 0).to_string().trim_end_matches(":0").to_owned(), port))
}

/// Host (IPv6 in brackets) and port of an `http` URL; its path does not matter.
fn parse_url(url: &str) -> Result<(String, u16), String> {
    let form = || format!("--url: {url:?} is not a URL such as http://127.0.0.1:8000");
    let rest = url.strip_prefix("http://").ok_or_else(form)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| form())?),
        _ => (authority, 80),
    };
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(fine) {
        return Err(form());
    }
    Ok((host.to_owned(), port))
}

fn ask(host: &str, port: u16) -> std::io::Result<(u16, String)> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = std::io::Error::other("no address");
    for address in (bare, port).to_socket_addrs()? {
        match ask_at(address, host) {
            Ok(answer) => return Ok(answer),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn ask_at(address: SocketAddr, host: &str) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    let port = address.port();
    write!(
        socket,
        "GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\
         User-Agent: millrace-healthcheck\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let bad = || std::io::Error::other("the answer is not HTTP");
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|s| s.get(..3)).ok_or_else(bad)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.parse().map_err(|_| bad())?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse_url;

    #[test]
    fn urls() {
        assert_eq!(parse_url("http://127.0.0.1:8000"), Ok(("127.0.0.1".to_owned(), 8000)));
        assert_eq!(parse_url("http://a.b/health"), Ok(("a.b".to_owned(), 80)));
        assert_eq!(parse_url("http://[::1]:9/x"), Ok(("[::1]".to_owned(), 9)));
        for wrong in
            ["127.0.0.1", "https://a", "http://", "http://a:b", "http://a b/", "http://a:99999"]
        {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
