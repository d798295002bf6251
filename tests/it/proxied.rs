//! The server behind nginx and `HAProxy`, which must read the same bytes as it does (row 33 of `docs/faults.md`): what one
//! takes for the end of a request and the other does not is somebody else's request.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, read_answer};
use crate::raw::LENGTHS_THAT_DISAGREE;
use crate::support::{FAKE, KEY, PATIENCE, Server};

/// One connection to the server for everybody, so that an answer too many would reach the next client.
const HAPROXY: &str = "
global
    nbthread 1
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout http-request 60s
listen it
    bind 127.0.0.1:{port}
    http-reuse always
    server millrace {server} maxconn 1
";
const NGINX: &str = "
daemon off;
master_process off;
error_log stderr crit;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream millrace {
        server {server};
        keepalive 1;
    }
    server {
        listen 127.0.0.1:{port};
        location / {
            proxy_pass http://millrace;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_request_buffering off;
            proxy_buffering off;
        }
    }
}
";

/// A proxy in front of a server. Killed when dropped.
struct Proxy {
    name: &'static str,
    child: Child,
    client: Client,
    _folder: TempDir,
}

impl Proxy {
    fn start(name: &'static str, config: &str, server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now; that nobody else takes it before the proxy does is likely enough.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let upstream = server.client().addr.to_string();
        let config = config.replace("{port}", &port.to_string()).replace("{server}", &upstream);
        let file = folder.path().join("proxy.conf");
        fs::write(&file, config).unwrap();
        let child = command(name, folder.path(), &file).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{name}: {e}: run scripts/test-tools.sh"));
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{name} does not start");
            assert!(Instant::now() < until, "{name} does not listen");
            // It has no way to say that it listens.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let client = Client { addr, key: KEY.to_owned() };
        Self { name, child, client, _folder: folder }
    }

    /// All that comes back when this is all that is sent.
    fn say(&self, bytes: &str) -> String {
        let mut socket = self.client.raw(b"").unwrap();
        // It may be refused before all of it is sent.
        let _ = socket.write_all(bytes.as_bytes()).and_then(|()| socket.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{}: {e}", self.name),
            _ => String::from_utf8_lossy(&answer).into_owned(),
        }
    }

    /// Nobody gets an answer to what another one sent.
    fn assert_is_in_step(&self, after: &str) {
        for id in ["first", "second", "third"] {
            let request = format!(
                "GET /version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
                 X-Request-Id: {id}\r\nConnection: close\r\n\r\n"
            );
            let answer = read_answer(self.client.raw(request.as_bytes()).unwrap()).unwrap();
            let got = (answer.status, answer.header("x-request-id"));
            assert_eq!(got, (200, Some(id)), "{} after {after:?}: {}", self.name, answer.body);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn command(name: &str, folder: &Path, config: &Path) -> Command {
    // Debian has them where only root looks.
    let place = format!("/usr/sbin/{name}");
    let mut command = Command::new(if Path::new(&place).is_file() { &place } else { name });
    match name {
        "nginx" => command.arg("-p").arg(folder).arg("-c").arg(config),
        _ => command.arg("-db").arg("-f").arg(config),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn proxies(server: &Server) -> [Proxy; 2] {
    [Proxy::start("haproxy", HAPROXY, server), Proxy::start("nginx", NGINX, server)]
}

#[test]
fn row_33_behind_a_proxy_nobody_gets_an_answer_to_anothers_bytes() {
    let server = Server::start(&[FAKE]);
    let hidden = format!(
        "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         X-Request-Id: hidden\r\n\r\n"
    );
    for proxy in proxies(&server) {
        proxy.assert_is_in_step("nothing");
        for (fields, body) in LENGTHS_THAT_DISAGREE {
            let request = format!(
                "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
                 Content-Type: application/json\r\n{fields}\r\n{body}{hidden}"
            );
            let answer = proxy.say(&request);
            // A proxy may read it in one way or the other, and then sends that on: one reading it is.
            assert!(answer.matches("HTTP/1.1 ").count() <= 2, "{fields:?} {body:?}: {answer}");
            proxy.assert_is_in_step(fields);
        }
        for request in ["GET /version HTTP/1.1\nHost: localhost\n\n", "\nGET /version HTTP/1.1\r\n"]
        {
            proxy.say(&format!("{request}{hidden}"));
            proxy.assert_is_in_step(request);
        }
    }
}

#[test]
fn streams_come_through_proxies_as_they_are() {
    let server = Server::start(&[FAKE]);
    for proxy in proxies(&server) {
        let body = json!({ "model": "fake", "prompt": "a", "max_tokens": 5, "stream": true, "ignore_eos": true });
        let (events, done) = proxy.client.stream(&body).finish();
        let last = &events.last().unwrap()["choices"][0]["finish_reason"];
        assert!(done && last == "length", "{}: {events:?}", proxy.name);
    }
}
