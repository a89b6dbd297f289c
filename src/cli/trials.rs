//! A source tried out: a test delivery that the server signs.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{
    Exit,
    context::{Context, str},
    failure::{Failure, Result},
    send,
    table::one_line,
    tail,
};

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
