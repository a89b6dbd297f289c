//! The socket: connections in, bounded in number and patience.
//!
//! `/healthz` answers as soon as the socket is open; everything else waits for the server behind it
//! to be ready, and is told to come again until then.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
    response::IntoResponse,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::web::Http;

/// Seconds that a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Open connections. Beyond, the kernel's queue holds them.
const CONNECTIONS_MAX: usize = 10_000;

/// Pause after `accept` failed, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long open requests may take to end once the server is told to stop.
const GOODBYE: Duration = Duration::from_secs(5);

/// What answers, once there is something.
pub(super) type Slot = Arc<OnceLock<Http>>;

/// Serves until told to stop, then lets open requests end.
pub(super) async fn serve(listener: TcpListener, slot: Slot, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and waited for: never hold them back for more.
        let _ = stream.set_nodelay(true);
        let slot = slot.clone();
        let service = hyper::service::service_fn(move |request| answer(slot.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tasks.spawn(async move {
            let mut connection = pin!(connection);
            // A peer that breaks off is its own business.
            let _ = connection.as_mut().await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GOODBYE, graceful.shutdown()).await;
}

async fn answer(
    slot: Slot,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    match slot.get() {
        Some(http) => Ok(http.answer(request.map(Body::new)).await),
        None if request.uri().path() == "/healthz" => Ok("ok".into_response()),
        None => {
            let body =
                r#"{"type":"error","error":{"type":"overloaded_error","message":"starting"}}"#;
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            Ok(response)
        }
    }
}
