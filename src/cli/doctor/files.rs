//! The addresses, the keys and the certificate.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use super::certificate;
use super::report::Check;
use crate::cli::address::advice;
use crate::cli::serve::is_locked_out;
use crate::config::{AuthConfig, Config, TlsConfig};
use crate::http::Tls;
use crate::keys::{self, KeyError, Moment};

/// Renewal is due this long before the end.
const RENEW_DAYS: i64 = 14;

pub(super) fn address(config: &Config) -> Check {
    let http = &config.http;
    let address = SocketAddr::new(http.host, http.port);
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    let mut check = Check::new("address", format!("{scheme}://{address}")).fact("port", http.port);
    match config.http.admin {
        Some(admin) => {
            let _ = write!(check.text, ", health and metrics on http://{admin}");
            // Both at once, as the server has them.
            let (first, _api) = free(check, address, "--port");
            check = free(first, admin, "--admin-listen").0;
        }
        None => check = free(check, address, "--port").0,
    }
    if !http.host.is_loopback() && http.tls.is_none() {
        check.text += "; keys and prompts cross the network unencrypted unless a proxy adds TLS";
    }
    check
}

/// Whether the server could listen there; who listens, if so.
fn free(mut check: Check, address: SocketAddr, option: &str) -> (Check, Option<TcpListener>) {
    let e = match TcpListener::bind(address) {
        Ok(listener) => return (check, Some(listener)),
        Err(e) => e,
    };
    let _ = write!(check.text, "; {address}: {e}");
    let advice = advice(address, option, &e);
    (check.must(format!("Serve cannot listen on {address}: {advice}.")), None)
}

pub(super) fn keys(auth: &AuthConfig, host: IpAddr) -> Check {
    if is_locked_out(auth) {
        return Check::new("keys", "none, so nobody could use the server").must(
            "Make a key: millrace keys add NAME --file keys.toml, then serve with --api-key-file keys.toml; or set \
             MILLRACE_API_KEY in the environment.",
        );
    }
    if auth.allow_unauthenticated {
        let whom = if host.is_loopback() { "this machine" } else { "the network" };
        return Check::new("keys", format!("none asked for: open to everybody on {whom}"));
    }
    let from_environment = auth.env_key_digest.is_some();
    let also = if from_environment { "one from MILLRACE_API_KEY" } else { "" };
    let Some(path) = &auth.api_key_file else { return Check::new("keys", also).fact("usable", 1) };
    let entries = match keys::list(path) {
        Ok(entries) => entries,
        Err(e) => return broken(path, &e),
    };
    let now = Moment::now();
    let usable = entries.iter().filter(|k| k.expires.is_none_or(|e| e > now)).count();
    let joint = if from_environment { ", and " } else { "" };
    let text = format!("{usable} of {} usable in {}{joint}{also}", entries.len(), path.display());
    let mut check = Check::new("keys", text)
        .fact("usable", usable + usize::from(from_environment))
        .fact("expired", entries.len() - usable);
    if usable == 0 && !from_environment {
        check = check.better(format!(
            "No key is left that could be used: millrace keys add NAME --file {}.",
            path.display()
        ));
    }
    if let Some(mode) = mode(path).filter(|mode| mode & 0o020 != 0) {
        let _ = write!(check.text, " (mode {mode:o})");
        check = check.better(format!(
            "The file's group may write to it, and so let itself in: chmod 600 {}.",
            path.display()
        ));
    }
    check
}

fn broken(path: &Path, e: &KeyError) -> Check {
    let shown = path.display();
    let is_open = mode(path).is_some_and(|mode| mode & 0o007 != 0);
    Check::new("keys", e.to_string()).must(if is_open {
        format!("The key file is open to everybody: chmod 600 {shown}.")
    } else {
        format!("The key file cannot be used: mend it, or make another with millrace keys add NAME --file {shown}.")
    })
}

/// `None` without TLS.
pub(super) fn tls(config: Option<&TlsConfig>) -> Option<Check> {
    let files = config?;
    let (cert, key) = (files.cert.display(), files.key.display());
    if let Err(e) = Tls::open(files.clone()) {
        return Some(Check::new("TLS", e.to_string()).must(format!(
            "The certificate cannot be served: mend {cert} and {key}, or name others with --ssl-certfile and \
             --ssl-keyfile."
        )));
    }
    let mut check = Check::new("TLS", cert.to_string());
    let first = CertificateDer::from_pem_file(&files.cert).ok();
    if let Some((from, until)) = first.and_then(|der| certificate::validity(&der)) {
        let now = OffsetDateTime::now_utc();
        let days = (until - now).whole_days();
        let _ = write!(check.text, ", valid until {}", until.date());
        check = check.fact("days_left", days);
        if now < from {
            check = check.better(format!(
                "The certificate holds from {} on only: check the clock, or {cert}.",
                from.date()
            ));
        } else if now >= until {
            check = check.better(format!(
                "The certificate has expired, and clients refuse it: renew {cert}."
            ));
        } else if days < RENEW_DAYS {
            check = check.better(format!("The certificate ends in {days} days: renew {cert} (the server reads it again by itself)."));
        }
    }
    if let Some(mode) = mode(&files.key).filter(|mode| mode & 0o004 != 0) {
        let _ = write!(check.text, " (key: mode {mode:o})");
        check = check.better(format!(
            "Everybody here may read the certificate's private key: chmod 600 {key}."
        ));
    }
    Some(check)
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}
