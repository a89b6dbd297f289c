//! `approve`, `deny`, `interrupt`: what a person says about a turn that waits or runs.

use serde_json::{Value, json};

use super::{
    Exit,
    context::{Context, str},
    failure::{Failure, Result},
    table::one_line,
};

pub(super) const APPROVE_EXAMPLES: &str = "\
Examples:
  bellpull approve sesn_01jv…                 every call that the session waits for
  bellpull approve sesn_01jv… sevt_01jv…      this one only

An approval is for the call with the input that was shown, and for nothing else. `bellpull tail`
shows both.";

pub(super) const DENY_EXAMPLES: &str = "\
Examples:
  bellpull deny sesn_01jv… --message 'not on a Friday'
  bellpull deny sesn_01jv… sevt_01jv…";

pub(super) const INTERRUPT_EXAMPLES: &str = "\
Examples:
  bellpull interrupt sesn_01jv…

The turn ends, with whatever it runs. Messages that wait are the next turn's.";

#[derive(Debug, clap::Args)]
pub struct Approve {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
pub struct Deny {
    #[command(flatten)]
    which: Which,
    /// What the agent shall hear
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Interrupt {
    /// Session whose turn shall stop
    #[arg(value_name = "SESSION")]
    session: String,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Session that waits
    #[arg(value_name = "SESSION")]
    session: String,
    /// Calls, by the ids of their events; without any, all that the session waits for
    #[arg(value_name = "CALL")]
    calls: Vec<String>,
}

pub(super) async fn approve(args: Approve, context: &mut Context<'_>) -> Result<Exit> {
    answer(args.which, &json!({"result": "allow"}), context).await
}

pub(super) async fn deny(args: Deny, context: &mut Context<'_>) -> Result<Exit> {
    let mut answer = json!({"result": "deny"});
    if let Some(message) = args.message {
        answer["deny_message"] = message.into();
    }
    self::answer(args.which, &answer, context).await
}

pub(super) async fn interrupt(args: Interrupt, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("interrupt the session `{}`", args.session);
    send(&what, &args.session, vec![json!({"type": "user.interrupt"})], context).await
}

async fn answer(which: Which, answer: &Value, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("answer the session `{}`", which.session);
    let calls = match which.calls.is_empty() {
        false => which.calls,
        true => waiting(&what, &which.session, context).await?,
    };
    let events = calls.into_iter().map(|call| {
        let mut event = answer.clone();
        event["type"] = "user.tool_confirmation".into();
        event["tool_use_id"] = call.into();
        event
    });
    send(&what, &which.session, events.collect(), context).await
}

/// The calls that a session said last that it waits for.
async fn waiting(what: &str, session: &str, context: &mut Context<'_>) -> Result<Vec<String>> {
    let path = ["v1", "sessions", session, "events"];
    let types = ["session.status_idle", "session.status_running"];
    let query = [("order", "desc"), ("types[]", types[0]), ("types[]", types[1]), ("limit", "1")];
    let found = context.client.get(what, &path, &query).await;
    let found = context.or_nearest(found, session, &["v1", "sessions"], &["id"]).await?;
    let ids = found["data"][0]["stop_reason"]["event_ids"].as_array();
    let ids: Vec<String> =
        ids.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect();
    match ids.is_empty() {
        true => Err(Failure::new(what, "it waits for no answer".to_owned())),
        false => Ok(ids),
    }
}

async fn send(
    what: &str,
    session: &str,
    events: Vec<Value>,
    context: &mut Context<'_>,
) -> Result<Exit> {
    let path = ["v1", "sessions", session, "events"];
    let sent = context.client.post(what, &path, &json!({"events": events})).await;
    let sent = context.or_nearest(sent, session, &["v1", "sessions"], &["id"]).await?;
    if context.json {
        context.io.json(&sent)?;
        return Ok(Exit::Fine);
    }
    for event in sent["data"].as_array().into_iter().flatten() {
        let line = match (str(&event["type"]), str(&event["result"])) {
            ("user.interrupt", _) if event["processed_at"].is_string() => {
                "nothing runs in this session".to_owned()
            }
            ("user.interrupt", _) => format!("stops  {session}"),
            (_, "allow") => format!("allowed  {}", str(&event["tool_use_id"])),
            _ => format!("denied  {}", str(&event["tool_use_id"])),
        };
        context.io.line(one_line(&line))?;
    }
    context.io.note(format!("bellpull tail {}  follows it", one_line(session)))?;
    Ok(Exit::Fine)
}
