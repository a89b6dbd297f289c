//! As much of HTTP as it takes: one request after the other on a connection, answers in chunks.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{Body, Captured, Format, Reply, State, check, now, render};

pub async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, state.clone()));
    }
}

async fn connection(stream: TcpStream, state: Arc<Mutex<State>>) {
    stream.set_nodelay(true).expect("an option of every socket");
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Ok(Some(request)) = request(&mut read).await {
        let format = request.format;
        let reply = next(&state, request);
        match answer(&reply, format, &mut read, &mut write).await {
            Ok(Ending::Kept) => {}
            Ok(Ending::Closed) => return,
            Err(_) => {
                state.lock().unwrap().abandoned.push(now());
                return;
            }
        }
    }
}

/// What the script says, unless the request is wrong.
fn next(state: &Mutex<State>, request: Captured) -> Reply {
    let mut state = state.lock().unwrap();
    let mut problems = check::problems(&request, &state.secrets);
    state.requests.push(request);
    let reply = state.script.pop_front();
    if reply.is_none() {
        problems.push("no reply is left in the script".to_owned());
    }
    if problems.is_empty() {
        return reply.expect("looked at just now");
    }
    let message = problems.join("; ");
    state.problems.extend(problems);
    Reply::status(400, "invalid_request_error", &message)
}

async fn request(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Captured>> {
    let mut line = String::new();
    if read.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        read.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    read.read_exact(&mut body).await?;
    let format = Format::of_path(&path).unwrap_or_else(|| panic!("a request to {path}"));
    let body = serde_json::from_slice(&body).expect("a request is JSON");
    Ok(Some(Captured { format, headers, body, at: now() }))
}

enum Ending {
    /// For another request.
    Kept,
    Closed,
}

async fn answer(
    reply: &Reply,
    format: Format,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<Ending> {
    let events = match &reply.body {
        Body::Answer(answer) => render::events(format, answer),
        Body::Raw(bytes) => vec![bytes.clone()],
    };
    if reply.cut_after == Some(0) {
        return Ok(Ending::Closed);
    }
    let mut head = format!("HTTP/1.1 {} Scripted\r\ntransfer-encoding: chunked\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.stall_after == Some(0) {
        return silence(read).await;
    }
    write.write_all(format!("{head}\r\n").as_bytes()).await?;
    if let Some(mut gate) = reply.gate.clone() {
        tokio::select! {
            _ = gate.wait_for(|open| *open) => {}
            given_up = silence(read) => return given_up,
        }
    }
    let mut n_sent = 0;
    for event in events {
        if reply.comments {
            chunk(write, b": still here\n\n").await?;
        }
        tokio::time::sleep(reply.pause).await;
        for piece in event.chunks(reply.chunk_bytes.min(event.len().max(1))) {
            for (end, ending) in [(reply.cut_after, true), (reply.stall_after, false)] {
                let Some(room) = end.map(|end| end - n_sent).filter(|room| piece.len() > *room)
                else {
                    continue;
                };
                chunk(write, &piece[..room]).await?;
                return if ending { Ok(Ending::Closed) } else { silence(read).await };
            }
            chunk(write, piece).await?;
            n_sent += piece.len();
        }
    }
    assert!(reply.cut_after.is_none() && reply.stall_after.is_none(), "{n_sent} bytes in all");
    write.write_all(b"0\r\n\r\n").await?;
    Ok(Ending::Kept)
}

async fn chunk(write: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    write.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    write.write_all(bytes).await?;
    write.write_all(b"\r\n").await
}

/// Waits until the other side gives up.
async fn silence(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Ending> {
    let mut byte = [0];
    match read.read(&mut byte).await {
        Ok(0) | Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        Ok(_) => panic!("another request on a connection that waits for an answer"),
    }
}
