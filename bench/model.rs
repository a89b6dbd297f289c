//! A model server for timing: it notes when a request arrives and answers with one word.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::post};
use tokio::sync::mpsc;

/// Speaks Anthropic's Messages with streaming.
pub struct Model {
    pub address: SocketAddr,
    /// When each request was there.
    pub asked: mpsc::UnboundedReceiver<Instant>,
}

const ANSWER: &str = "\
event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\
\"model\":\"claude-bench\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n\
event: content_block_start\n\
data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Done.\"}}\n\n\
event: content_block_stop\n\
data: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
event: message_delta\n\
data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\
\"usage\":{\"output_tokens\":2}}\n\n\
event: message_stop\n\
data: {\"type\":\"message_stop\"}\n\n";

#[derive(Clone)]
struct Shared {
    asked: mpsc::UnboundedSender<Instant>,
    delay: Duration,
}

impl Model {
    /// Answers after `delay`.
    pub async fn start(delay: Duration) -> anyhow::Result<Model> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, asked) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/v1/messages", post(answer))
            .with_state(Shared { asked: sender, delay });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Model { address, asked })
    }
}

async fn answer(State(shared): State<Shared>) -> impl IntoResponse {
    let _ = shared.asked.send(Instant::now());
    tokio::time::sleep(shared.delay).await;
    ([(header::CONTENT_TYPE, "text/event-stream")], ANSWER)
}
