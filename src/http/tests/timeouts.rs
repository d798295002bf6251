//! Clients that are slow, on purpose or not.

use std::time::Duration;

use super::support::*;
use crate::config::HttpConfig;

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_head_that_does_not_come_is_cut_and_others_are_served() {
    let server = start(HttpConfig { header_timeout: SOON, ..config() }).await;
    let mut silent = Client::connect(server.addr).await;
    let mut slow = Client::connect(server.addr).await;
    slow.send("GET /health/live HTTP/1.1\r\nHost: loc").await;
    assert_eq!(status(&get_public(server.addr, "/health/live").await), 200);
    assert_eq!(silent.read_to_end().await, "");
    assert_eq!(slow.read_to_end().await, "");
}

#[tokio::test]
async fn a_second_head_on_a_connection_has_the_same_limit() {
    let server = start(HttpConfig { header_timeout: SOON, ..config() }).await;
    let mut client = Client::connect(server.addr).await;
    client.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    client.read_until("\"}").await;
    client.send("GET /health/live HTTP/1.1\r\nHo").await;
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_limit_on_heads() {
    let server = start(HttpConfig { header_timeout: SOON, ..config() }).await;
    let mut idle = Client::connect(server.addr).await;
    let request = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    idle.send(request).await;
    idle.read_until("\"}").await;
    // Connected later, cut by that limit: so it has passed for the idle one, too.
    assert_eq!(Client::connect(server.addr).await.read_to_end().await, "");
    idle.send(request).await;
    idle.read_until("200 OK").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let impatient = HttpConfig { header_timeout: SOON, idle_timeout: 2 * SOON, ..config() };
    let server = start(impatient).await;
    let mut client = Client::connect(server.addr).await;
    client.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status(&client.read_to_end().await), 200);
}

#[tokio::test]
async fn at_the_cap_connections_wait_for_a_place() {
    let server = start(HttpConfig { max_connections: 1, ..config() }).await;
    let mut first = Client::connect(server.addr).await;
    first.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    first.read_until("200 OK").await;
    let mut second = Client::connect(server.addr).await;
    second.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(second.is_silent().await);
    drop(first);
    assert_eq!(status(&second.read_to_end().await), 200);
}

#[tokio::test]
async fn what_is_not_http_gets_400_and_the_connection_closes() {
    let server = start(config()).await;
    let bad = [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ];
    for request in bad {
        let answer = ask(server.addr, request).await;
        let told = (status(&answer), code(&answer));
        assert_eq!(told, (400, "malformed_request".to_owned()), "{request}");
        assert_eq!(header(&answer, "connection"), Some("close"));
        assert!(header(&answer, "x-request-id").is_some() && header(&answer, "date").is_some());
    }
    // Behind an answer on the same connection, at once and later.
    let sound = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let both = ask(server.addr, &format!("{sound}{}", bad[0])).await;
    assert_eq!((status(&both), both.matches("malformed_request").count()), (200, 1), "{both}");
    // Far more than the sockets' buffers: the client is still sending when it is refused.
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(4 << 20));
    let answer = ask(server.addr, &huge).await;
    assert_eq!((status(&answer), code(&answer).as_str()), (431, "headers_too_large"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "y".repeat(100_000));
    let answer = ask(server.addr, &long).await;
    assert!([414, 431].contains(&status(&answer)) && !code(&answer).is_empty(), "{answer}");
}

#[cfg(feature = "fake-model")]
mod with_model {
    use super::*;

    #[tokio::test]
    async fn a_body_that_stops_coming_gets_408() {
        let server = start_ready(HttpConfig { body_timeout: SOON, ..config() }).await;
        let mut client = Client::connect(server.addr).await;
        let request = with_key("POST /v1/echo", "", "ten bytes!");
        client.send(&request[..request.len() - 4]).await;
        let answer = client.read_to_end().await;
        assert_eq!((status(&answer), code(&answer).as_str()), (408, "request_timeout"));
        assert_eq!(header(&answer, "connection"), Some("close"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_gets_413_and_the_client_can_read_it() {
        let server = start_ready(config()).await;
        let fits = ask(server.addr, &with_key("POST /v1/echo", "", &"x".repeat(1000))).await;
        assert_eq!(status(&fits), 200);
        // Far more than the sockets' buffers: the client is still sending when it is refused.
        let body = "x".repeat(16 << 20);
        let answer = ask(server.addr, &with_key("POST /v1/echo", "", &body)).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (413, "request_too_large"));
        let chunked = format!(
            "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
             Transfer-Encoding: chunked\r\n\r\n800\r\n{}\r\n0\r\n\r\n",
            "x".repeat(0x800)
        );
        let mut client = Client::connect(server.addr).await;
        client.send(chunked).await;
        let answer = client.read_until("request_too_large").await;
        assert_eq!((status(&answer), header(&answer, "connection")), (413, Some("close")));
    }

    #[tokio::test]
    async fn nobody_without_a_key_is_asked_to_send_a_body() {
        let server = start_ready(config()).await;
        let head = "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                    Content-Length: 10\r\n";
        let mut client = Client::connect(server.addr).await;
        client.send(format!("{head}\r\n")).await;
        assert_eq!(status(&client.read_until("\r\n\r\n").await), 401);
        let mut client = Client::connect(server.addr).await;
        client.send(format!("{head}Authorization: Bearer {KEY}\r\n\r\n")).await;
        assert_eq!(status(&client.read_until("\r\n\r\n").await), 100);
        client.send("ten bytes!").await;
        client.read_until("ten bytes!").await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_its_connection() {
        let server = start_ready(HttpConfig { client_stall_timeout: SOON, ..config() }).await;
        let mut client = Client::connect(server.addr).await;
        client.send(with_key("GET /v1/endless", "", "")).await;
        server.hold.wait_for("began").await;
        server.hold.wait_for("dropped").await;
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_takes_its_request_with_it() {
        let server = start_ready(config()).await;
        for path in ["/v1/plain", "/v1/held"] {
            let mut client = Client::connect(server.addr).await;
            client.send(with_key(&format!("POST {path}"), "", "")).await;
            server.hold.wait_for("began").await;
            drop(client);
            server.hold.wait_for("dropped").await;
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn a_hang_up_behind_unread_bytes_is_one_too() {
        let server = start_ready(config()).await;
        let next = with_key("POST /v1/echo", "", "");
        for (path, unread) in [
            ("/v1/plain", "\r\n"),
            ("/v1/held", "\r\n"),
            ("/v1/plain", next.as_str()),
            ("/v1/held", next.as_str()),
        ] {
            let mut client = Client::connect(server.addr).await;
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
                 Content-Length: 0\r\n\r\n{unread}"
            );
            client.send(request).await;
            server.hold.wait_for("began").await;
            // More that nobody reads: neither is this a hang-up, nor does it hide one.
            client.send("\r\n").await;
            tokio::time::sleep(SOON).await;
            assert!(server.hold.told.lock().await.try_recv().is_err(), "{path} goes on");
            drop(client);
            server.hold.wait_for("dropped").await;
        }
    }
}
