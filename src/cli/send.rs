//! `send`: an event the way a sender sends it, through the front door, or a message that a person
//! types.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{
    Exit,
    context::{Context, str},
    failure::{Failure, Result},
    sessions,
    style::look,
    table::one_line,
    tail, trials,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull send --agent lucy --token $TOKEN --data '{\"hello\":\"bell\"}' --follow
  curl -s https://api.example.com/event/7 | bellpull send --source tickets --token $TOKEN --id 7
  bellpull send --source code --sign --file issue.json -H 'X-GitHub-Event: issues'
  bellpull send --session sesn_01jv… 'And what about the second one?' --follow

The payload is what `--data` or `--file` say, or else the input, sent byte for byte.
With --follow the exit code is 0 if the turn ended well, and 1 if it did not.";

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("to").required(true))]
pub struct Args {
    /// Agent to send to, by id or name
    #[arg(long, value_name = "AGENT", group = "to", requires = "token")]
    agent: Option<String>,
    /// Source to send to, by name
    #[arg(long, value_name = "SOURCE", group = "to")]
    source: Option<String>,
    /// Session to send a message to
    #[arg(long, value_name = "SESSION", group = "to")]
    session: Option<String>,
    /// Message for `--session`; without one, the input
    #[arg(value_name = "TEXT", conflicts_with_all = ["agent", "source"])]
    text: Option<String>,
    /// Bearer token of the agent or source; for a source without one, `--key` or BELLPULL_API_KEY
    #[arg(long, visible_alias = "bearer", value_name = "TOKEN", conflicts_with = "session")]
    token: Option<SecretString>,
    /// Let the server sign it, as the source's sender would; that needs a key of scope `admin`
    #[arg(long, requires = "source", conflicts_with_all = ["token", "basic"])]
    sign: bool,
    /// User name and password, for a source that wants them
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with_all = ["session", "token"])]
    basic: Option<SecretString>,
    /// Id of the delivery, as `Idempotency-Key`: sent again it is a duplicate
    #[arg(long, value_name = "ID", conflicts_with = "session")]
    id: Option<String>,
    /// Payload: JSON, unless a content type is given
    #[arg(long, value_name = "JSON", conflicts_with_all = ["session", "file"])]
    data: Option<String>,
    /// File with the payload; `-` is the input
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    file: Option<PathBuf>,
    /// Header of the request, as `Name: value`; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", conflicts_with = "session", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Follow the session until it is idle
    #[arg(long)]
    follow: bool,
}

/// A server refuses more than this unless its operator allowed it, and then senders are not people.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(super) fn header(text: &str) -> std::result::Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `Name: value`")?;
    let name = name.trim().parse().map_err(|_| "the name is no header name")?;
    let value = value.trim().parse().map_err(|_| "the value holds a control character")?;
    Ok((name, value))
}

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    match (&args.agent, &args.source, &args.session) {
        (Some(agent), ..) => {
            let id = context.agent_id(agent).await?;
            let url = context.client.url(&["api", "agents", &id, "webhook"], &[])?;
            let refused = format!(
                "`bellpull agents webhook {agent}` says which secret holds the token of this agent"
            );
            deliver(url, &format!("send to the agent `{agent}`"), &refused, &args, context).await
        }
        (_, Some(source), _) if args.sign => {
            let test = trials::Test {
                name: source.clone(),
                body: Some(payload(&args, context)?),
                header: args.header,
                id: args.id,
                follow: args.follow,
            };
            trials::send(test, context).await
        }
        (_, Some(source), _) => {
            let url = context.client.url(&["api", "webhook", source], &[])?;
            let refused = format!("`bellpull sources refusals {source}` says why");
            deliver(url, &format!("send to the source `{source}`"), &refused, &args, context).await
        }
        (.., Some(session)) => message(session, args.text, args.follow, context).await,
        (None, None, None) => Err(Failure::wrong("name an agent, a source or a session")),
    }
}

async fn deliver(
    url: reqwest::Url,
    what: &str,
    refused: &str,
    args: &Args,
    context: &mut Context<'_>,
) -> Result<Exit> {
    let body = payload(args, context)?;
    let headers = headers(args, &body, context)?;
    let (status, request_id, answer) = context.client.deliver(what, url, headers, body).await?;
    if !status.is_success() {
        let message = answer["error"]["message"].as_str().map(str::to_owned);
        let said = message.or_else(|| answer["status"].as_str().map(str::to_owned));
        let message = said.unwrap_or_else(|| format!("the server answered {status}"));
        let failure = Failure::new(what, message).status(status.as_u16()).request_id(request_id);
        return Err(match status {
            StatusCode::UNAUTHORIZED => failure.hint(refused),
            StatusCode::SERVICE_UNAVAILABLE if args.id.is_some() => {
                failure.hint("send it again with the same `--id`: it is taken once")
            }
            _ => failure,
        });
    }
    let session = str(&answer["session_id"]).to_owned();
    if !context.json || args.follow {
        tell(&answer, args.follow, context)?;
    } else {
        context.io.json(&answer)?;
    }
    if args.follow && !session.is_empty() {
        return tail::session(context, &session, tail::How::follow()).await;
    }
    Ok(Exit::Fine)
}

/// What became of it. The output belongs to the events when the session is followed.
pub(super) fn tell(answer: &Value, follow: bool, context: &mut Context<'_>) -> Result<()> {
    let (status, delivery) = (str(&answer["status"]), one_line(str(&answer["delivery_id"])));
    let session = one_line(str(&answer["session_id"]));
    if follow && context.json {
        return context.io.json_line(answer);
    }
    let style = context.io.style();
    let status = style.paint(look(status), &one_line(status));
    let session_part = if session.is_empty() { String::new() } else { format!("  {session}") };
    context.io.line(format!("{status}  {delivery}{session_part}"))?;
    match session.as_str() {
        "" => context.io.note(format!("bellpull deliveries show {delivery}  says why")),
        _ if follow => Ok(()),
        _ => context.io.note(format!("bellpull tail {session}  follows it")),
    }
}

fn payload(args: &Args, context: &mut Context<'_>) -> Result<Vec<u8>> {
    let has_type = args.header.iter().any(|(name, _)| *name == CONTENT_TYPE);
    if let Some(data) = &args.data
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(data)
        && !has_type
    {
        return Err(Failure::wrong(format!("`--data` is not JSON: {error}"))
            .hint("for anything else, say what it is: -H 'Content-Type: text/plain'"));
    }
    bytes(args.data.as_deref(), args.file.as_deref(), context)
}

/// A payload as it was given: on the command line, in a file, or as the input.
pub(super) fn bytes(
    data: Option<&str>,
    file: Option<&Path>,
    context: &mut Context<'_>,
) -> Result<Vec<u8>> {
    match (data, file) {
        (Some(data), _) => Ok(data.as_bytes().to_vec()),
        (None, Some(path)) if path.as_os_str() != "-" => {
            let shown = path.display();
            let bytes = std::fs::read(path);
            bytes.map_err(|error| Failure::wrong(format!("`{shown}` cannot be read: {error}")))
        }
        (None, None) if context.io.input_is_terminal => Err(Failure::wrong("there is no payload")
            .hint("give `--data` or `--file`, or pipe one in; `--file -` types it")),
        _ => context.io.read_input(PAYLOAD_BYTES_MAX),
    }
}

fn headers(args: &Args, body: &[u8], context: &Context<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(id) = &args.id {
        let id = id.parse().map_err(|_| Failure::wrong("`--id` holds a control character"))?;
        headers.insert("idempotency-key", id);
    }
    let key = context.client.connection().given_key();
    let token = args.token.as_ref().or(key.filter(|_| args.source.is_some()));
    let authorization = match (&args.basic, token) {
        (Some(basic), _) => Some(format!("Basic {}", STANDARD.encode(basic.expose_secret()))),
        (None, token) => token.map(|token| format!("Bearer {}", token.expose_secret())),
    };
    if let Some(text) = authorization {
        let value = HeaderValue::try_from(text);
        let mut value = value.map_err(|_| Failure::wrong("the token holds a control character"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (at, (name, value)) in args.header.iter().enumerate() {
        // The first of a name replaces ours, further ones join it.
        if args.header[..at].iter().any(|(before, _)| before == name) {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
        }
    }
    Ok(headers)
}

async fn message(
    session: &str,
    text: Option<String>,
    follow: bool,
    context: &mut Context<'_>,
) -> Result<Exit> {
    let text = match text {
        Some(text) => text,
        None if context.io.input_is_terminal => {
            return Err(Failure::wrong("there is no message")
                .hint("write it behind the session, or pipe it in"));
        }
        None => {
            let bytes = context.io.read_input(PAYLOAD_BYTES_MAX)?;
            let text = String::from_utf8(bytes);
            text.map_err(|_| Failure::wrong("the message is not valid UTF-8"))?
        }
    };
    if text.trim().is_empty() {
        return Err(Failure::wrong("the message is empty"));
    }
    let what = format!("send to the session `{session}`");
    let body = json!({"events": [sessions::message(&text)]});
    let path = ["v1", "sessions", session, "events"];
    let sent = context.client.post(&what, &path, &body).await;
    let sent = context.or_nearest(sent, session, &["v1", "sessions"], &["id"]).await?;
    if follow {
        return tail::session(context, session, tail::How::follow()).await;
    }
    if context.json {
        context.io.json(&sent)?;
    } else {
        let id = one_line(str(&sent["data"][0]["id"]));
        context.io.line(format!("sent  {id}  {}", one_line(session)))?;
        context.io.note(format!("bellpull tail {}  follows it", one_line(session)))?;
    }
    Ok(Exit::Fine)
}
