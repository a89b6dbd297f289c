//! An MCP server over HTTP that says what no decent one would. Each tool is a way to misbehave.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub struct McpServer {
    pub url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    calls: Mutex<Vec<(String, Value)>>,
    n_bytes: AtomicU64,
    /// Whether nobody gets an answer, and how many asked for one.
    is_silent: bool,
    n_asked: AtomicU64,
}

/// What each tool does when it is called, by its name.
const TOOLS: [&str; 9] =
    ["echo", "hang", "stall", "wrong-id", "no-id", "twice", "huge", "close", "surrogate"];

/// Tools that no model can be told of.
const UNFIT: [&str; 3] = ["", "with space", "ring\u{202e}\n"];

impl McpServer {
    pub async fn start() -> McpServer {
        McpServer::with(State::default()).await
    }

    /// One that takes requests and says nothing.
    pub async fn silent() -> McpServer {
        McpServer::with(State { is_silent: true, ..State::default() }).await
    }

    async fn with(state: State) -> McpServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let state = Arc::new(state);
        let shared = state.clone();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                connections.spawn(async move { serve(stream, &state).await });
            }
        });
        McpServer { url, state, serving }
    }

    /// What was called, in order.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.state.calls.lock().expect("not poisoned").clone()
    }

    pub fn n_asked(&self) -> u64 {
        self.state.n_asked.load(Ordering::SeqCst)
    }

    /// Of the endless answer, as much as somebody took.
    pub fn n_bytes(&self) -> u64 {
        self.state.n_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for McpServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request after the other on a connection, as long as there are any.
async fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if read.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            read.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        read.read_exact(&mut body).await?;
        if !first.starts_with("POST") {
            write.write_all(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n").await?;
            continue;
        }
        state.n_asked.fetch_add(1, Ordering::SeqCst);
        if state.is_silent {
            std::future::pending::<()>().await;
        }
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match request["method"].as_str().unwrap_or_default() {
            "initialize" => json!({"protocolVersion": request["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "odd", "version": "1"}}),
            "tools/list" => {
                let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
                let all = TOOLS.iter().chain(&UNFIT).map(tool);
                json!({"tools": all.collect::<Vec<_>>()})
            }
            "tools/call" => {
                let name = request["params"]["name"].as_str().unwrap_or_default().to_owned();
                let arguments = request["params"]["arguments"].clone();
                let called = (name.clone(), arguments.clone());
                state.calls.lock().expect("not poisoned").push(called);
                if misbehave(&name, &request["id"], &mut write, state).await? {
                    return Ok(());
                }
                json!({"content": [{"type": "text", "text": arguments.to_string()}]})
            }
            _ => {
                write.write_all(b"HTTP/1.1 202 Taken\r\ncontent-length: 0\r\n\r\n").await?;
                continue;
            }
        };
        let id = &request["id"];
        let json = json!({"jsonrpc": "2.0", "id": id, "result": answer}).to_string();
        write.write_all(&whole("application/json", &json)).await?;
    }
}

fn whole(kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Whether the connection is of no use any more. A tool that behaves has its answer from the caller.
async fn misbehave(
    name: &str,
    id: &Value,
    write: &mut (impl AsyncWriteExt + Unpin),
    state: &State,
) -> std::io::Result<bool> {
    let said = |id: Value, text: &str| {
        let result = json!({"content": [{"type": "text", "text": text}]});
        json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
    };
    let other = json!(id.as_i64().unwrap_or(0) + 1000);
    let answer = match name {
        "hang" => std::future::pending::<Vec<u8>>().await,
        "stall" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: well\n\n";
            write.write_all(head).await?;
            std::future::pending::<Vec<u8>>().await
        }
        "wrong-id" => whole("application/json", &said(other, "for somebody else")),
        "no-id" => whole("application/json", &said(Value::Null, "for nobody")),
        "twice" => {
            let (one, two) = (said(id.clone(), "the first"), said(id.clone(), "the second"));
            whole("text/event-stream", &format!("data: {one}\n\ndata: {two}\n\n"))
        }
        "surrogate" => {
            let text = said(id.clone(), "SOME").replace("SOME", "a\\ud800b\\u0000c");
            whole("application/json", &text)
        }
        "huge" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                content-length: 104857600\r\n\r\n{\"x\":\"";
            write.write_all(head).await?;
            let piece = vec![b'x'; 64 * 1024];
            while write.write_all(&piece).await.is_ok() {
                state.n_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            return Ok(true);
        }
        "close" => return Ok(true),
        _ => return Ok(false),
    };
    write.write_all(&answer).await?;
    Ok(true)
}
