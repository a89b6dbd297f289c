//! An HTTP server of a few lines, on loopback, that answers what a test says and remembers what it
//! was asked. Each connection has a thread and takes one request.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(in crate::cli) struct Request {
    /// Method and target, without the query.
    pub(in crate::cli) line: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    pub(in crate::cli) body: Vec<u8>,
}

impl Request {
    pub(in crate::cli) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    pub(in crate::cli) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(in crate::cli) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(in crate::cli) enum Answer {
    Whole {
        status: u16,
        kind: &'static str,
        body: Vec<u8>,
    },
    /// An event stream: these pieces, each as one write, then the end, if it ends.
    Stream {
        pieces: Vec<Vec<u8>>,
        ends: bool,
    },
    /// Nothing: the connection is closed.
    Close,
}

impl Answer {
    pub(in crate::cli) fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer::Whole { status, kind, body: body.into() }
    }

    pub(in crate::cli) fn json(value: &Value) -> Answer {
        Answer::new(200, "application/json", value.to_string())
    }

    pub(in crate::cli) fn error(status: u16, kind: &str, message: &str) -> Answer {
        let error = json!({"type": kind, "message": message});
        let body = json!({"type": "error", "error": error, "request_id": "req_1"});
        Answer::new(status, "application/json", body.to_string())
    }

    /// A stream that ends behind this text.
    pub(in crate::cli) fn stream(text: &str) -> Answer {
        Answer::Stream { pieces: vec![text.as_bytes().to_vec()], ends: true }
    }

    /// A stream that stays open.
    pub(in crate::cli) fn open_stream(text: &str) -> Answer {
        Answer::Stream { pieces: vec![text.as_bytes().to_vec()], ends: false }
    }
}

pub(in crate::cli) struct Server {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(in crate::cli) fn start(
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, open) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let (seen, held, stop) = (requests.clone(), Arc::clone(&open), stopping.clone());
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (seen, held, answer) = (&seen, &held, &answer);
                    scope.spawn(move || serve(stream.unwrap(), seen, held, answer));
                }
            });
        });
        Server { address, requests, open, stopping, thread: Some(thread) }
    }

    pub(in crate::cli) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub(in crate::cli) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the loop.
        let _ = TcpStream::connect(self.address);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server of the test panicked");
        }
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    held: &Mutex<Vec<TcpStream>>,
    answer: &(impl Fn(&Request) -> Answer + Sync),
) {
    let Some(request) = read(&stream) else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    match answer(&request) {
        Answer::Whole { status, kind, body } => {
            let n = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {n}\r\n\
                 Connection: close\r\n\r\n"
            );
            // The client may have what it wants already.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
        Answer::Stream { pieces, ends } => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Connection: close\r\n\r\n";
            let _ = stream.set_nodelay(true);
            let _ = stream.write_all(head.as_bytes());
            for piece in pieces {
                let _ = stream.write_all(&piece);
            }
            if !ends {
                held.lock().unwrap().push(stream);
            }
        }
        Answer::Close => {}
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, n)| n.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    Some(Request { line: format!("{method} {path}"), query, headers, body })
}
