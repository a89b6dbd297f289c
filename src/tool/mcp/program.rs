//! A server that is a program in a sandbox, as one stream of what it says and hears.
//!
//! Invariant: a line that it says has a bound, and what it says to its standard error is passed over
//! and never blocks it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tool::sandbox::Running;

/// Ends the program when it is dropped.
#[derive(Debug)]
pub(super) struct Talk {
    running: Box<Running>,
    line_bytes: usize,
    line_bytes_max: usize,
}

impl Talk {
    pub(super) fn new(running: Box<Running>, line_bytes_max: usize) -> Talk {
        Talk { running, line_bytes: 0, line_bytes_max }
    }

    fn pass_over_errors(&mut self, cx: &mut Context<'_>) {
        let mut space = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.running.stderr).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
    }
}

impl AsyncRead for Talk {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pass_over_errors(cx);
        let n_before = buf.filled().len();
        ready!(Pin::new(&mut self.running.stdout).poll_read(cx, buf))?;
        for byte in &buf.filled()[n_before..] {
            self.line_bytes = if *byte == b'\n' { 0 } else { self.line_bytes + 1 };
            if self.line_bytes > self.line_bytes_max {
                let what = format!("a line of more than {} bytes", self.line_bytes_max);
                return Poll::Ready(Err(io::Error::other(what)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Talk {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.running.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.running.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.running.stdin = None;
        Poll::Ready(Ok(()))
    }
}
