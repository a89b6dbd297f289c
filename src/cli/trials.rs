//! A source tried out: a test delivery that the server signs, and why a request is let in or not.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{
    Exit,
    captured::Head,
    context::{Context, str},
    failure::{Failure, Result},
    send,
    style::look,
    table::one_line,
    tail,
};
use crate::clock::Timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id or name
    #[arg(value_name = "SOURCE")]
    name: String,
    /// Payload in place of the sender's sample
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    data: Option<String>,
    /// File with the payload; `-` is the input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Header of the request, as `Name: value`; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = send::header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Id of the delivery, where the sender writes it into a header or the sample is sent [default: a fresh one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Follow the session until it is idle
    #[arg(long)]
    follow: bool,
}

pub(super) async fn test(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let is_given = args.data.is_some() || args.file.is_some();
    let bytes = || send::bytes(args.data.as_deref(), args.file.as_deref(), context);
    let body = is_given.then(bytes).transpose()?;
    let Args { name, header, id, follow, .. } = args;
    send(Test { name, body, header, id, follow }, context).await
}

/// A test delivery; without a body, the sample of the source's sender.
pub(super) struct Test {
    pub(super) name: String,
    pub(super) body: Option<Vec<u8>>,
    pub(super) header: Vec<(HeaderName, HeaderValue)>,
    pub(super) id: Option<String>,
    pub(super) follow: bool,
}

impl Test {
    fn to_json(&self) -> Result<Value> {
        let mut body = Map::new();
        if let Some(bytes) = &self.body {
            body.insert("body_base64".to_owned(), STANDARD.encode(bytes).into());
        }
        let mut headers: Map<String, Value> = Map::new();
        for (name, value) in &self.header {
            let text = value.to_str().map_err(|_| {
                Failure::wrong(format!("the value of the header `{name}` is not ASCII"))
            })?;
            let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
            values.as_array_mut().expect("it was made as a list").push(text.into());
        }
        if !headers.is_empty() {
            body.insert("headers".to_owned(), headers.into());
        }
        body.extend(self.id.clone().map(|id| ("id".to_owned(), id.into())));
        Ok(body.into())
    }
}

pub(super) async fn send(test: Test, context: &mut Context<'_>) -> Result<Exit> {
    let name = &test.name;
    let what = format!("test the source `{name}`");
    let body = test.to_json()?;
    let done = context.client.post(&what, &["v1", "sources", name, "test"], &body).await;
    let done = context.or_nearest(done, name, &["v1", "sources"], &["name"]).await?;
    let answer = &done["answer"];
    if answer.is_null() {
        if context.json {
            context.io.json(&done)?;
        }
        return Err(Failure::new(what, "the gate refused what this server signed itself")
            .hint(format!("`bellpull sources refusals {name}` says why")));
    }
    let session = str(&answer["session_id"]).to_owned();
    if context.json && !test.follow {
        context.io.json(&done)?;
    } else {
        if !context.json {
            tell(&done["sent"], context)?;
        }
        send::tell(answer, test.follow, context)?;
    }
    if test.follow && !session.is_empty() {
        return tail::session(context, &session, tail::How::follow()).await;
    }
    Ok(Exit::Fine)
}

/// The request, as a sender's would look on the wire. Not the output: that is what became of it.
fn tell(sent: &Value, context: &mut Context<'_>) -> Result<()> {
    let (method, url) = (str(&sent["method"]), str(&sent["url"]));
    context.io.note(one_line(&format!("> {method} {url}")))?;
    for (name, values) in sent["headers"].as_object().into_iter().flatten() {
        for value in values.as_array().into_iter().flatten() {
            context.io.note(one_line(&format!("> {name}: {}", str(value))))?;
        }
    }
    context.io.note(">")?;
    for line in str(&sent["body"]).lines() {
        context.io.note(format!("> {}", one_line(line)))?;
    }
    Ok(())
}

/// `sources verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Its id or name
    #[arg(value_name = "SOURCE")]
    name: String,
    /// File with the request's headers: `Name: value` lines, what `curl -v` prints, or JSON
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// File with the request's body, byte for byte; without one it is empty
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// As of this time, for a request that is old: RFC 3339, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// URL that the sender called, or its path and query [default: the source's own]
    #[arg(long, value_name = "URL")]
    request_url: Option<String>,
}

fn time(text: &str) -> std::result::Result<Timestamp, String> {
    let seconds = text.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1000));
    let time = seconds.map(Timestamp).or_else(|| text.parse().ok());
    time.ok_or_else(|| "must be as in 2026-11-22T07:00:00Z, or seconds since 1970".to_owned())
}

pub(super) async fn verify(args: Verify, context: &mut Context<'_>) -> Result<Exit> {
    let name = &args.name;
    let what = format!("verify a request to the source `{name}`");
    let head = Head::read(&send::bytes(None, Some(&args.headers), context)?)?;
    let mut request = json!({"headers": head.headers});
    if let Some(file) = &args.body {
        let bytes = send::bytes(None, Some(file), context)?;
        request["body_base64"] = STANDARD.encode(bytes).into();
    }
    let url = args.request_url.or(head.url);
    request["url"] = url.into();
    request["method"] = head.method.into();
    request["at"] = json!(args.at);
    let found = context.client.post(&what, &["v1", "sources", name, "verify"], &request).await;
    let found = context.or_nearest(found, name, &["v1", "sources"], &["name"]).await?;
    let exit = if found["passes"] == true { Exit::Fine } else { Exit::Failed };
    if context.json {
        context.io.json(&found)?;
    } else {
        explain(&found, context)?;
    }
    Ok(exit)
}

fn explain(found: &Value, context: &mut Context<'_>) -> Result<()> {
    let style = context.io.style();
    for step in found["steps"].as_array().into_iter().flatten() {
        let word = if step["ok"] == true { "yes" } else { "no" };
        let (name, detail) = (one_line(str(&step["step"])), one_line(str(&step["detail"])));
        let padding = " ".repeat(3 - word.len());
        context
            .io
            .line(format!("{}{padding}  {name:<9}  {detail}", style.paint(look(word), word)))?;
    }
    context.io.line("")?;
    let text = |value: &Value| one_line(value.as_str().unwrap_or("none"));
    if found["passes"] == true {
        let destination = &found["destination"];
        let identity = &found["identity"];
        let fate = match destination["reason"].as_str() {
            Some(reason) => format!("{}: {}", text(&destination["status"]), one_line(reason)),
            None => {
                let target = &destination["target"];
                let target = match target["key"].as_str() {
                    Some(key) => format!("the session of the key `{}`", one_line(key)),
                    None => text(target),
                };
                format!("accepted for {}, {target}", text(&destination["agent_id"]))
            }
        };
        context.io.line("It would be let in.")?;
        context.io.line(format!("identity    {}", text(&identity["key"])))?;
        context.io.line(format!("event type  {}", text(&found["event_type"])))?;
        return context.io.line(format!("delivery    {fate}"));
    }
    context.io.line(format!("It would be refused: {}.", text(&found["reason"])))?;
    for hint in found["hints"].as_array().into_iter().flatten() {
        context.io.line(format!("hint: {}", text(hint)))?;
    }
    if str(&found["reason"]).contains("timestamp") {
        context.io.note("an old request is looked at as of its own time with `--at`")?;
    }
    Ok(())
}
