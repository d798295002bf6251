//! What to do about an address that cannot be listened on.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// The rest of a sentence that tells of it: why, and what to do. `option` is the one that names the port.
pub(crate) fn advice(address: SocketAddr, option: &str, e: &io::Error) -> String {
    let port = address.port();
    match e.kind() {
        ErrorKind::AddrInUse => format!(
            "port {port} is taken: end what listens there (ss -ltnp 'sport = :{port}' names it), or take another \
             with {option}"
        ),
        ErrorKind::PermissionDenied => format!(
            "port {port} is for root: take one above 1023 with {option}, or allow it: sudo setcap \
             cap_net_bind_service=+ep $(command -v millrace)"
        ),
        ErrorKind::AddrNotAvailable => format!(
            "{} is no address of this machine: take one that `ip address` shows, or 127.0.0.1, with {}",
            address.ip(),
            if option == "--port" { "--host" } else { option }
        ),
        _ => format!("{e}; take another address with --host and {option}"),
    }
}
