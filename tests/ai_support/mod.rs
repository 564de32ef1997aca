//! An endpoint that speaks OpenAI's chat completions from a script, over real HTTP on loopback.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What it does with one request.
#[derive(Clone)]
pub struct Act {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Promises more than it sends, and hangs up.
    cut: bool,
    /// Says nothing more, and keeps the connection.
    hang: bool,
    /// The same, but for comments that keep the connection open.
    comments: bool,
}

/// An answer in pieces of a stream, as it is sent with `stream: true`.
pub fn stream(chunks: &[Value]) -> Act {
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    events_of(&format!(": hello\n\n{events}data: [DONE]\n\n"))
}

pub fn events_of(body: &str) -> Act {
    Act {
        status: 200,
        headers: "content-type: text/event-stream; charset=utf-8\r\n".to_owned(),
        body: body.as_bytes().to_vec(),
        cut: false,
        hang: false,
        comments: false,
    }
}

pub fn answer(status: u16, kind: &str, body: &str) -> Act {
    let headers = format!("content-type: {kind}\r\n");
    Act {
        status,
        headers,
        body: body.as_bytes().to_vec(),
        cut: false,
        hang: false,
        comments: false,
    }
}

pub fn error(status: u16, message: &str) -> Act {
    answer(status, "application/json", &json!({"error": {"message": message}}).to_string())
}

impl Act {
    pub fn with(mut self, header: &str) -> Act {
        self.headers.push_str(header);
        self.headers.push_str("\r\n");
        self
    }
    pub fn cut(self) -> Act {
        Act { cut: true, ..self }
    }
    pub fn hang(self) -> Act {
        Act { hang: true, ..self }
    }

    pub fn comments(self) -> Act {
        Act { comments: true, ..self.hang() }
    }
}

/// Words as they are streamed, three characters at a time, and what they cost.
pub fn says(text: &str) -> Act {
    let chars: Vec<char> = text.chars().collect();
    let mut chunks: Vec<Value> = chars
        .chunks(3)
        .map(|piece| {
            let piece: String = piece.iter().collect();
            json!({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]})
        })
        .collect();
    chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    chunks.push(usage(100, 7));
    stream(&chunks)
}

pub fn usage(prompt: u64, completion: u64) -> Value {
    json!({"choices": [], "usage": {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
    }})
}

/// Calls of tools side by side, their arguments in pieces.
pub fn calls(calls: &[(&str, &str)]) -> Act {
    let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]});
    let mut chunks = Vec::new();
    for (n, (name, _)) in calls.iter().enumerate() {
        chunks.push(delta(json!({"role": "assistant", "content": null, "tool_calls": [
            {"index": n, "id": format!("id-{name}-{n}"), "type": "function",
             "function": {"name": name, "arguments": ""}}]})));
    }
    // What belongs to different calls comes mixed.
    let longest = calls.iter().map(|(_, args)| args.len()).max().unwrap_or(0);
    for at in (0..longest).step_by(5) {
        for (n, (_, args)) in calls.iter().enumerate() {
            let piece = args.get(at..(at + 5).min(args.len())).unwrap_or_default();
            if !piece.is_empty() {
                chunks.push(delta(json!({"tool_calls": [
                    {"index": n, "function": {"arguments": piece}}]})));
            }
        }
    }
    chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
    chunks.push(usage(50, 3));
    stream(&chunks)
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub target: String,
    pub head: String,
    pub body: Value,
    pub text: String,
}

impl Asked {
    /// The contents of the messages of this role.
    pub fn said_by(&self, role: &str) -> Vec<String> {
        let messages = self.body["messages"].as_array().unwrap();
        let messages = messages.iter().filter(|message| message["role"] == role);
        messages.map(|m| m["content"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

pub struct Endpoint {
    /// For OPENAI_API_BASE.
    pub base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    /// Does one act after the other; the last one again and again.
    pub fn new(acts: Vec<Act>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let heard = asked.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (heard, acts) = (heard.clone(), acts.clone());
                std::thread::spawn(move || serve(stream, &acts, &heard));
            }
        });
        Endpoint { base, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, acts: &[Act], heard: &Mutex<Vec<Asked>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let text = String::from_utf8(body).unwrap();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let number = {
        let mut heard = heard.lock().unwrap();
        let body = serde_json::from_str(&text).unwrap();
        heard.push(Asked { target, head, body, text });
        heard.len() - 1
    };
    let act = acts.get(number).or(acts.last()).unwrap();
    let out = stream.get_mut();
    let length =
        if act.cut { format!("content-length: {}\r\n", act.body.len() + 9) } else { String::new() };
    let status = act.status;
    let headers = &act.headers;
    let head = format!("HTTP/1.1 {status} X\r\n{headers}{length}connection: close\r\n\r\n");
    let _ = out.write_all(head.as_bytes());
    let _ = out.write_all(&act.body);
    let _ = out.flush();
    if act.comments {
        // Until the client hangs up, or takes no more.
        let _ = stream.get_ref().set_read_timeout(Some(std::time::Duration::from_millis(100)));
        while stream.read(&mut [0]).is_err()
            && stream.get_mut().write_all(b": keepalive\n\n").is_ok()
        {}
        return;
    }
    if act.hang {
        // Until the client hangs up.
        let _ = stream.read(&mut [0]);
    }
}
