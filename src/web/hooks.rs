//! The two webhook routes: bounded raw bytes in, one small answer out.
//!
//! Nothing is parsed or looked up here before the gate has let the caller in, and until then nothing
//! about the request but its method decides what is answered: a name that cannot exist is treated
//! like one that does not. What the answers say is a public contract.

use axum::{
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    App,
    error::Error,
    frame, intake,
    routes::{Access, Routes, Success, succeeds},
};
use crate::{
    domain::object::Object,
    id::{Id, WebhookRequestId},
    ingest::{Answer, Demanded, Endpoint, Greeting, Head, Reject, Taken},
    store::Verdict,
};

pub(super) fn routes() -> Routes {
    const AGENT: &str = "Rings an agent: the payload starts or continues a session.";
    const SOURCE: &str = "Takes a delivery of a source. GET is for handshakes of senders.";
    let doc = |says| succeeds(Success::Receipt, says).anything().or(&[405]);
    Routes::with("webhooks", Access::Sender)
        .any(&[Method::POST], "/api/agents/{id}/webhook", agent, doc(AGENT))
        .any(&[Method::POST, Method::GET], "/api/webhook/{source}", source, doc(SOURCE))
}

/// Whether a path is that of a webhook, whose requests have ids of their own kind.
pub(super) fn is_webhook(path: &str) -> bool {
    let name = path.strip_prefix("/api/webhook/").or_else(|| {
        let rest = path.strip_prefix("/api/agents/")?;
        rest.strip_suffix("/webhook")
    });
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

type Name = Result<Path<String>, PathRejection>;

async fn agent(State(app): State<App>, name: Name, request: Request) -> Response {
    let name = text(name, &request);
    receive(app, Endpoint::Agent(name), request).await
}

async fn source(State(app): State<App>, name: Name, request: Request) -> Response {
    let name = text(name, &request);
    receive(app, Endpoint::Source(name), request).await
}

/// The name, or the whole path when that is no UTF-8: nothing is called so.
fn text(name: Name, request: &Request) -> String {
    name.map_or_else(|_| request.uri().path().to_owned(), |Path(name)| name)
}

async fn receive(app: App, endpoint: Endpoint, mut request: Request) -> Response {
    let clock = app.store.clock().clone();
    let (id, started) = (frame::id_of::<WebhookRequestId>(&mut request), clock.monotonic());
    let agent_id = match &endpoint {
        Endpoint::Agent(name) => Some(name.clone()),
        Endpoint::Source(_) => None,
    };
    let (parts, body) = request.into_parts();
    let declared = intake::declared(&parts.headers);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let head = Head {
        endpoint,
        url: app.url(path),
        method: parts.method,
        headers: parts.headers,
        request_id: id.clone(),
    };
    let read_body = async |permit| intake::read(&app.ingest.bounds, declared, body, permit).await;
    match app.ingest.accept(head, read_body).await {
        Ok(Taken::Greeted(Greeting { status, headers, body })) => {
            (status, headers, Body::from(body)).into_response()
        }
        Ok(Taken::Stored(answer)) => {
            ring(&app, &answer);
            app.store.metrics().answered(clock.monotonic() - started);
            accepted(&answer, &id)
        }
        Err(Reject::Method) => {
            (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response()
        }
        Err(Reject::Processing) => processing(agent_id.as_deref(), &id),
        Err(reject) => Error::from(reject).into_response(),
    }
}

/// Wakes whoever works on what was accepted. Nobody does while the agent is paused, and whoever resumes
/// it rings: else each delivery to it were a look for work in vain. Where another node has resumed it a
/// moment ago, the next look by the clock finds it.
pub(super) fn ring(app: &App, answer: &Answer) {
    if answer.verdict != Verdict::Accepted {
        return;
    }
    let Some(session) = &answer.session_id else { return };
    let agents = &app.ingest.registry.snapshot().agents;
    let agent = answer.agent_id.as_ref().and_then(|id| agents.get(id));
    if agent.is_some_and(|agent| agent.paused) {
        app.signals.changed(session);
    } else {
        app.ring(session);
    }
}

/// The contract's answer, or what the sender wants to hear in its place.
fn accepted(answer: &Answer, id: &WebhookRequestId) -> Response {
    let Some(Demanded { status, body, content_type }) = answer.demanded else {
        return json(StatusCode::ACCEPTED, &shown(answer, id));
    };
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
    match (body, content_type) {
        _ if status == StatusCode::NO_CONTENT => status.into_response(),
        (None, _) => json(status, &shown(answer, id)),
        (Some(body), Some(kind)) => {
            (status, [(header::CONTENT_TYPE, kind)], body.as_str()).into_response()
        }
        (Some(body), None) => (status, Body::from(body.as_str())).into_response(),
    }
}

fn json(status: StatusCode, shown: &Shown<'_>) -> Response {
    (status, [(header::CONTENT_TYPE, APPLICATION_JSON)], shown.to_json()).into_response()
}

const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of both contracts' answers.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    status: &'static str,
    agent_id: Option<&'a str>,
    session_id: Option<&'a str>,
    delivery_id: Option<&'a str>,
    request_id: &'a WebhookRequestId,
}

impl Shown<'_> {
    /// As it serializes, in one piece of memory that is large enough from the start.
    fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(512);
        Object::begin(&mut json)
            .plain("status", self.status)
            .or_null("agent_id", self.agent_id, Object::text)
            .or_null("session_id", self.session_id, Object::plain)
            .or_null("delivery_id", self.delivery_id, Object::plain)
            .plain("request_id", self.request_id.as_str())
            .end();
        json
    }
}

pub(super) fn shown<'a>(answer: &'a Answer, request_id: &'a WebhookRequestId) -> Shown<'a> {
    Shown {
        status: answer.verdict.as_str(),
        agent_id: answer.agent_id.as_ref().map(Id::as_str),
        session_id: answer.session_id.as_ref().map(Id::as_str),
        delivery_id: Some(answer.delivery_id.as_str()),
        request_id,
    }
}

/// The commit may or may not have happened. The sender's retry is told which.
fn processing(agent_id: Option<&str>, id: &WebhookRequestId) -> Response {
    let body = Shown {
        status: "processing",
        agent_id,
        session_id: None,
        delivery_id: None,
        request_id: id,
    };
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn what_is_answered_is_what_is_shown_elsewhere() {
        let request_id = &WebhookRequestId::new(Timestamp(0));
        let full = Shown {
            status: "accepted",
            agent_id: Some("agent \"1\""),
            session_id: Some("sesn_1"),
            delivery_id: Some("dlv_1"),
            request_id,
        };
        let empty = Shown {
            status: "processing",
            agent_id: None,
            session_id: None,
            delivery_id: None,
            request_id,
        };
        for shown in [full, empty] {
            assert_eq!(shown.to_json(), serde_json::to_vec(&shown).unwrap());
        }
    }

    #[test]
    fn a_commit_of_unknown_result_is_a_503_that_says_processing() {
        let id = WebhookRequestId::new(Timestamp(0));
        let response = processing(Some("agent_1"), &id);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
