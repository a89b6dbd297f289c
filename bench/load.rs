//! A closed loop of HTTP requests over kept connections: each sends the next when the last is answered.
//!
//! Written by hand on sockets, because it shares the processors with what it measures: a whole HTTP
//! client costs as much as the server. It reads just enough of an answer to know where that ends.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Where webhooks go, and what is in them.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub path: String,
    pub token: String,
}

/// What a window of load came to.
#[derive(Debug, Default)]
pub struct Sample {
    pub seconds: f64,
    /// One for each answer, in microseconds, in no order.
    pub latencies: Vec<u32>,
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// Milliseconds below which this share of the answers came.
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(&self.latencies, share)
    }

    pub fn join(&mut self, more: Sample) {
        self.seconds += more.seconds;
        self.latencies.extend(more.latencies);
    }
}

/// Of microseconds, in milliseconds.
pub fn percentile(micros: &[u32], share: f64) -> f64 {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
}

/// Ids are never used twice, whatever server they go to.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A payload of 1 KiB, shaped like an event.
pub fn payload() -> String {
    let mut body = serde_json::json!({
        "id": "evt_1Nx", "type": "invoice.payment_succeeded", "created": 1_795_292_000,
        "data": {"object": {"amount": 4200, "currency": "eur", "customer": "cus_N1x", "paid": true,
            "lines": [{"sku": "bell", "count": 2}, {"sku": "cord", "count": 1}]}},
        "note": "",
    });
    let missing = 1024 - body.to_string().len();
    body["note"] = "n".repeat(missing).into();
    body.to_string()
}

/// One kept connection.
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Where the id is in `request`.
    id: std::ops::Range<usize>,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(target: &Target) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(target.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let body = payload();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\nuser-agent: bench\r\ncontent-length: {}\r\n\
             webhook-id: msg_",
            target.path,
            target.address,
            target.token,
            body.len()
        );
        let id = head.len()..head.len() + 20;
        let request = format!("{head}{:020}\r\n\r\n{body}", 0).into_bytes();
        Ok(Connection { stream, request, id, answer: Vec::with_capacity(4096) })
    }

    /// Sends one webhook with an id of its own; how long the answer took.
    pub async fn ring(&mut self) -> anyhow::Result<Duration> {
        let id = format!("{:020}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.request[self.id.clone()].copy_from_slice(id.as_bytes());
        let sent = Instant::now();
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some(end) = end_of_answer(&self.answer)
                && self.answer.len() >= end
            {
                break;
            }
        }
        let took = sent.elapsed();
        if !self.answer.starts_with(b"HTTP/1.1 202") {
            bail!("not accepted: {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(took)
    }
}

/// Bytes of the whole answer, once its head is there.
fn end_of_answer(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head + length.unwrap_or(0))
}

/// Rings on so many connections for a while.
pub async fn run(target: &Target, connections: usize, window: Duration) -> anyhow::Result<Sample> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(target).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = open
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < window {
                    latencies.push(micros(connection.ring().await?));
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Sample { seconds: started.elapsed().as_secs_f64(), latencies })
}

pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
