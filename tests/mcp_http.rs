//! MCP over streamable HTTP: `/mcp` of the server, and `netspy mcp --http`, in both eras.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod mcp_support;

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use common::records::{ago, closed, info, refused};
use common::{Answer, server, server_on};
use mcp_support::{ERAS, Era, Serving, column, hello, netspy, params};
use netspy::Connection;
use netspy::api::Tokens;
use netspy::server::Terms;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn records() -> Vec<Connection> {
    let curl = info(7, "curl");
    (0..6).map(|n| ago(60, refused(n * 250, &curl))).collect()
}

/// A client over HTTP: one connection for each request.
struct Client {
    address: SocketAddr,
    era: Era,
    session: Option<String>,
    /// Lines of the head of each request.
    more: String,
}

impl Client {
    async fn start(address: SocketAddr, era: Era, more: &str) -> Client {
        let mut client = Client { address, era, session: None, more: more.to_owned() };
        if era == Era::Handshake {
            let answer = client.post("initialize", Some(0), hello()).await;
            assert_eq!(answer.status, 200, "{}", answer.head);
            client.session = answer.header("mcp-session-id").map(str::to_owned);
            assert!(client.session.is_some(), "{}", answer.head);
            let accepted = client.post("notifications/initialized", None, json!({})).await;
            assert_eq!(accepted.status, 202);
        }
        client
    }

    fn head(&self, method: &str, name: Option<&str>) -> String {
        let mut head = format!("Host: localhost\r\n{}", self.more);
        match self.era {
            Era::Handshake => {
                if let Some(session) = &self.session {
                    head += &format!(
                        "MCP-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-11-25\r\n"
                    );
                }
            }
            Era::Stateless => {
                head += &format!("MCP-Protocol-Version: 2026-07-28\r\nMCP-Method: {method}\r\n");
                if let Some(name) = name {
                    head += &format!("MCP-Name: {name}\r\n");
                }
            }
        }
        head
    }

    async fn post(&self, method: &str, id: Option<u64>, given: Value) -> Answer {
        let name = given.get("name").or(given.get("uri")).and_then(Value::as_str);
        let head = self.head(method, name);
        let mut message = json!({"jsonrpc": "2.0", "method": method});
        message["params"] = params(self.era, given);
        if let Some(id) = id {
            message["id"] = id.into();
        }
        let body = message.to_string();
        let head = format!(
            "POST /mcp HTTP/1.1\r\n{head}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
            body.len()
        );
        common::ask(TcpStream::connect(self.address).await.unwrap(), &head, body.as_bytes()).await
    }

    /// The answer to a request, whether it comes alone or as the last of a stream.
    async fn ask(&self, method: &str, given: Value) -> Result<Value, Value> {
        let answer = self.post(method, Some(1), given).await;
        assert!(answer.status == 200 || answer.status == 400, "{} {}", answer.head, text(&answer));
        let message = messages(&text(&answer)).pop().expect("an answer");
        match message.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(message["result"].clone()),
        }
    }

    async fn call(&self, name: &str, arguments: Value) -> Value {
        let called = self.ask("tools/call", json!({"name": name, "arguments": arguments})).await;
        let result = called.unwrap();
        assert_ne!(result["isError"], true, "{result}");
        result["structuredContent"].clone()
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The messages in a body: plain JSON, or events, cut into chunks or not.
fn messages(body: &str) -> Vec<Value> {
    let events = body.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut all: Vec<Value> = events.filter_map(|data| serde_json::from_str(data).ok()).collect();
    if all.is_empty() {
        // A chunk's size stands on a line of its own.
        let lines = body.lines().filter(|line| line.starts_with('{'));
        all.extend(lines.filter_map(|line| serde_json::from_str(line).ok()));
    }
    all
}

async fn every_tool_answers(address: SocketAddr, more: &str) {
    for era in ERAS {
        let client = Client::start(address, era, more).await;
        let list = client.ask("tools/list", json!({})).await.unwrap();
        let tools = list["tools"].as_array().unwrap();
        assert_eq!(tools.len(), 9);
        for tool in tools {
            let name = tool["name"].as_str().unwrap();
            let arguments = match name {
                "watch_connections" => json!({"duration": 1}),
                "contextual_analysis" => json!({"query": "what fails?"}),
                _ => json!({}),
            };
            let content = client.call(name, arguments).await;
            assert_eq!(content["complete"], true, "{name}: {content}");
        }
        let found = client.call("list_connections", json!({"process_name": "curl"})).await;
        assert_eq!(column(&found, "outcome"), vec!["refused"; 6]);
        let status = client.ask("resources/read", json!({"uri": "netspy://status"})).await.unwrap();
        assert!(status["contents"][0]["text"].as_str().unwrap().contains("healthy"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_answers_at_mcp_in_both_eras() {
    let server = server(records()).await;
    every_tool_answers(server.address, "").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_or_name_is_refused() {
    let server = server(records()).await;
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello()}).to_string();
    let ask = async |more: &str| {
        let head = format!(
            "POST /mcp HTTP/1.1\r\n{more}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
            body.len()
        );
        server.ask(&head, body.as_bytes()).await.status
    };
    assert_eq!(ask("Host: localhost\r\n").await, 200);
    assert_eq!(ask("Host: 127.0.0.1:80\r\nOrigin: http://localhost:3000\r\n").await, 200);
    for more in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nOrigin: http://localhost.evil.example\r\n",
    ] {
        assert_eq!(ask(more).await, 403, "{more}");
    }
    let large = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
        10 << 20
    );
    assert_eq!(server.ask(&large, &vec![b'x'; 300 << 10]).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_transport_refuses_says_why_and_what_is_accepted() {
    let server = server(records()).await;
    let own = Serving::start(server.address, &[]);
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let cases = [
        ("MCP-Session-Id: no-such\r\n", "application/json", list.as_str(), 404, "no such session"),
        ("", "application/json", &list, 400, "\"parameter\":\"Mcp-Session-Id\""),
        (
            "MCP-Protocol-Version: 1999-01-01\r\n",
            "application/json",
            &list,
            400,
            "\"parameter\":\"MCP-Protocol-Version\"",
        ),
        ("MCP-Protocol-Version: 1999-01-01\r\n", "application/json", &list, 400, "2025-11-25"),
        ("Origin: http://evil.example\r\n", "application/json", &list, 403, "Origin"),
        ("", "text/plain", &list, 415, "Content-Type"),
        ("", "application/json", "{\"jsonrpc\":", 400, "-32700"),
    ];
    for address in [server.address, own.1] {
        for (more, kind, body, status, says) in cases {
            let head = format!(
                "POST /mcp HTTP/1.1\r\nHost: localhost\r\n{more}Content-Type: {kind}\r\n\
                 Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
                body.len()
            );
            let answer =
                common::ask(TcpStream::connect(address).await.unwrap(), &head, body.as_bytes())
                    .await;
            let said = text(&answer);
            assert_eq!(answer.status, status, "{more}{body}: {said}");
            assert!(said.contains(says), "{more}{body}: {said}");
        }
    }
}

/// A file with a token, gone when the test is over.
struct TokenFile(std::path::PathBuf);

impl TokenFile {
    fn new(name: &str) -> Self {
        let name = format!("netspy-mcp-token-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), b"the-token-of-this-test\n").unwrap();
        TokenFile(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_token_wants_it_here_too() {
    let file = TokenFile::new("server");
    let tokens = Some(Arc::new(Tokens::read(&file.0).unwrap()));
    let server = server_on(records(), Terms { tokens, ..Terms::default() }).await;
    let client =
        Client { address: server.address, era: Era::Stateless, session: None, more: String::new() };
    assert_eq!(client.post("tools/list", Some(1), json!({})).await.status, 401);
    every_tool_answers(server.address, "Authorization: Bearer the-token-of-this-test\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn netspy_itself_serves_http_and_asks_for_its_token() {
    let server = server(records()).await;
    let open = Serving::start(server.address, &[]);
    every_tool_answers(open.1, "").await;
    let file = TokenFile::new("own");
    let guarded = Serving::start(server.address, &["--http-token-file", file.0.to_str().unwrap()]);
    let client =
        Client { address: guarded.1, era: Era::Stateless, session: None, more: String::new() };
    assert_eq!(client.post("tools/list", Some(1), json!({})).await.status, 401);
    every_tool_answers(guarded.1, "Authorization: Bearer the-token-of-this-test\r\n").await;
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let refused = netspy(&["mcp", "--http", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--http-token-file"), "{said}");
}

#[test]
fn a_port_in_use_is_told_with_the_option_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = netspy(&["mcp", "--http", &address]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--http") && said.contains("in use"), "{said}");
    assert!(!said.contains("--port"), "{said}");
}

/// Reads a stream until it holds this text.
async fn hear(stream: &mut TcpStream, heard: &mut String, text: &str) {
    let mut bytes = [0; 4096];
    while !heard.contains(text) {
        let read =
            tokio::time::timeout(std::time::Duration::from_secs(60), stream.read(&mut bytes));
        let n = read.await.expect("in time").unwrap();
        assert!(n > 0, "the stream ended: {heard}");
        heard.push_str(&String::from_utf8_lossy(&bytes[..n]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_watched_tells_of_a_change_in_both_eras() {
    let server = server(records()).await;
    let uri = "netspy://process/wget";
    for era in ERAS {
        let client = Client::start(server.address, era, "").await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut heard = String::new();
        match era {
            Era::Handshake => {
                let subscribed = client.ask("resources/subscribe", json!({"uri": uri})).await;
                assert_eq!(subscribed, Ok(json!({})));
                let head = client.head("", None);
                let get = format!("GET /mcp HTTP/1.1\r\n{head}Accept: text/event-stream\r\n\r\n");
                stream.write_all(get.as_bytes()).await.unwrap();
                hear(&mut stream, &mut heard, "200 OK").await;
            }
            Era::Stateless => {
                let listen = params(
                    era,
                    json!({"notifications": {"resourceSubscriptions": [uri, "file:///etc/passwd"]}}),
                );
                let message = json!({"jsonrpc": "2.0", "id": 5, "method": "subscriptions/listen", "params": listen});
                let (head, body) = (client.head("subscriptions/listen", None), message.to_string());
                let post = format!(
                    "POST /mcp HTTP/1.1\r\n{head}Content-Type: application/json\r\nAccept: \
                     application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(post.as_bytes()).await.unwrap();
                hear(&mut stream, &mut heard, "notifications/subscriptions/acknowledged").await;
                assert!(heard.contains(uri) && !heard.contains("passwd"), "{heard}");
            }
        }
        // The follower attaches at its own time, so changes come until one is told.
        let wget = info(30, "wget");
        let (mut n, store) = (7_000 + 1_000 * era as u64, Arc::clone(&server.store));
        let feed = tokio::spawn(async move {
            loop {
                store.apply(vec![ago(0, closed(n, &wget))]);
                n += 1;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        hear(&mut stream, &mut heard, "notifications/resources/updated").await;
        feed.abort();
        assert!(heard.contains(uri), "{heard}");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_that_opened_it_and_others_go_on() {
    let (file, other) = (TokenFile::new("revoked"), TokenFile::new("kept"));
    std::fs::write(&file.0, "the-token-of-this-test\na-token-that-is-kept\n").unwrap();
    std::fs::write(&other.0, "a-token-that-is-kept\n").unwrap();
    let tokens = Arc::new(Tokens::read(&file.0).unwrap());
    let terms = Terms { tokens: Some(Arc::clone(&tokens)), ..Terms::default() };
    let server = server_on(records(), terms).await;
    let revoked = "Authorization: Bearer the-token-of-this-test\r\n";
    let kept = "Authorization: Bearer a-token-that-is-kept\r\n";
    let mut ends = server.events("/api/v1/stream", revoked).await;
    let mut goes_on = server.events("/api/v1/stream", kept).await;
    let client = Client::start(server.address, Era::Handshake, revoked).await;
    let head = client.head("", None);
    let get = format!("GET /mcp HTTP/1.1\r\n{head}Accept: text/event-stream\r\n\r\n");
    let mut session = TcpStream::connect(server.address).await.unwrap();
    session.write_all(get.as_bytes()).await.unwrap();
    hear(&mut session, &mut String::new(), "200 OK").await;
    // A reload that leaves the token is none of its streams' business.
    tokens.replace(Tokens::read(&file.0).unwrap());
    server.store.apply(vec![ago(0, refused(8_000, &info(30, "wget")))]);
    assert_eq!(ends.next().await.unwrap().name, "connection");
    tokens.replace(Tokens::read(&other.0).unwrap());
    assert!(ends.next().await.is_none());
    // The last chunk of the transfer: it has ended in order.
    hear(&mut session, &mut String::new(), "0\r\n\r\n").await;
    server.store.apply(vec![ago(0, refused(8_001, &info(30, "wget")))]);
    for _ in 0..2 {
        assert_eq!(goes_on.next().await.unwrap().name, "connection");
    }
    // The session itself is of no use without a token.
    assert_eq!(client.post("tools/list", Some(1), json!({})).await.status, 401);
    server.stop().await;
}

#[tokio::test]
async fn who_accepts_no_form_of_an_answer_is_told_which_header_says_so() {
    let server = server(records()).await;
    let get = server.get("/mcp").await;
    assert_eq!((get.status, &get.json()["parameter"]), (406, &json!("Accept")), "{}", text(&get));
    assert_eq!(get.json()["accepted"], "text/event-stream");
    let post = server.post("/mcp", "application/json", b"{}").await;
    assert_eq!(
        (post.status, &post.json()["parameter"]),
        (406, &json!("Accept")),
        "{}",
        text(&post)
    );
    // And of the other header, if that is the cause.
    let head = "GET /health HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity;q=0\r\n";
    assert_eq!(server.ask(head, b"").await.json()["parameter"], "Accept-Encoding");
    server.stop().await;
}

/// Clients take 200 or 204 for the end of their session, and anything else for a failure.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_is_told_in_words_that_clients_know() {
    let server = server(records()).await;
    let own = Serving::start(server.address, &[]);
    for address in [server.address, own.1] {
        let client = Client::start(address, Era::Handshake, "").await;
        let end = async || {
            let head = format!("DELETE /mcp HTTP/1.1\r\n{}", client.head("", None));
            common::ask(TcpStream::connect(address).await.unwrap(), &head, b"").await
        };
        let ended = end().await;
        assert_eq!((ended.status, text(&ended)), (204, String::new()), "{}", ended.head);
        assert_eq!(client.post("tools/list", Some(1), json!({})).await.status, 404);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_sessions_are_in_use_a_client_is_told_when_to_come_again() {
    let server = server(records()).await;
    let first = Client::start(server.address, Era::Handshake, "").await;
    let begin = Client { session: None, more: String::new(), ..first };
    for _ in 1..256 {
        assert_eq!(begin.post("initialize", Some(0), hello()).await.status, 200);
    }
    let refused = begin.post("initialize", Some(0), hello()).await;
    assert_eq!(refused.status, 503, "{}", text(&refused));
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(refused.header("content-type"), Some("application/json"));
    let error = refused.json()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("sessions"), "{error}");
    // Who needs no session is served.
    let stateless = Client { era: Era::Stateless, ..begin };
    assert!(stateless.ask("tools/list", json!({})).await.is_ok());
    server.stop().await;
}
