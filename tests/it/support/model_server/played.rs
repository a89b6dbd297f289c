//! A reply without a network, for a client that is handed its responses.

use bellpull::clock::Clock;
use futures_util::{StreamExt, stream};

use super::{Body, Format, Reply, render};

impl Reply {
    /// The response that this reply makes, with its pause before each chunk. It keeps the guard until
    /// it is over or nobody reads it any more.
    pub fn response(
        &self,
        format: Format,
        clock: Clock,
        guard: impl Send + 'static,
    ) -> reqwest::Response {
        let mut bytes = match &self.body {
            Body::Answer(answer) => render::events(format, answer).concat(),
            Body::Raw(bytes) => bytes.clone(),
        };
        bytes.truncate(self.cut_after.or(self.stall_after).unwrap_or(usize::MAX));
        let chunks = bytes.chunks(self.chunk_bytes).map(|chunk| Ok(chunk.to_owned()));
        let cut = self.cut_after.map(|_| Err("the connection was cut"));
        let chunks: Vec<_> = chunks.chain(cut).collect();
        let pause = self.pause;
        let paced = stream::iter(chunks).then(move |chunk| {
            let (clock, _guard) = (clock.clone(), &guard);
            async move {
                clock.sleep(pause).await;
                chunk
            }
        });
        let end = match self.stall_after {
            Some(_) => stream::pending().left_stream(),
            None => stream::empty().right_stream(),
        };
        let mut head = http::Response::builder().status(self.status);
        for (name, value) in &self.headers {
            head = head.header(name, value);
        }
        let body = reqwest::Body::wrap_stream(paced.chain(end));
        head.body(body).expect("a status and headers of a test").into()
    }
}
