//! A changed source tried on the deliveries that came, and what came of it in a page.

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Exit,
    client::cause,
    context::{Context, str},
    failure::{Failure, Result},
    moment::duration,
    sse::{Item, Parser},
    table::{Cell, Table, one_line},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id or name
    #[arg(value_name = "SOURCE")]
    name: String,
    /// How far to look back, such as `7d`, `12h` or `30m`
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "7d")]
    since: Duration,
    /// File with what would be different, as TOML or JSON: the fields of a source [default: nothing]
    #[arg(long = "with", value_name = "FILE")]
    changes: Option<PathBuf>,
    /// Seconds of quiet before a turn would begin; short for `debounce_seconds` in the file
    #[arg(long, value_name = "SECONDS")]
    debounce: Option<u32>,
    /// Differences to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    differences: u32,
}

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("try the source `{}`", args.name);
    let now = context.io.clock.now();
    let mut body = json!({
        "since": now.minus(args.since),
        "until": now,
        "differences": args.differences,
        "stream": true,
    });
    body["source"] = match &args.changes {
        Some(path) => changes(path)?,
        None => json!({}),
    };
    if let Some(seconds) = args.debounce {
        body["source"]["debounce_seconds"] = seconds.into();
    }
    let path = ["v1", "sources", &args.name, "backtest"];
    let answer = context.client.open_post(&what, &path, &body).await;
    let answer = context.or_nearest(answer, &args.name, &["v1", "sources"], &["name"]).await?;
    let report = follow(&what, answer, context).await?;
    if context.json {
        context.io.json(&report)?;
    } else {
        print(&report, context)?;
    }
    Ok(Exit::Fine)
}

fn changes(path: &std::path::Path) -> Result<Value> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::wrong(format!("`{shown}` cannot be read: {error}")))?;
    let value: Value = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text)
            .map_err(|error| Failure::wrong(format!("`{shown}` is not valid JSON: {error}")))?,
        false => {
            let table: Map<String, Value> = toml::from_str(&text).map_err(|error| {
                Failure::wrong(format!("`{shown}` is not valid TOML: {}", error.message()))
            })?;
            table.into()
        }
    };
    Ok(value)
}

/// Reads the stream to its report; tells a person how far it is.
async fn follow(
    what: &str,
    mut answer: reqwest::Response,
    context: &mut Context<'_>,
) -> Result<Value> {
    let (mut parser, mut tenths) = (Parser::default(), 0);
    loop {
        let chunk = answer.chunk().await.map_err(|error| {
            Failure::new(what, format!("the answer broke off: {}", cause(&error)))
        })?;
        let Some(chunk) = chunk else {
            return Err(Failure::new(what, "the answer ended without a report"));
        };
        parser.feed(&chunk).map_err(|error| Failure::new(what, error.to_string()))?;
        while let Some(item) = parser.next() {
            let Item::Frame(frame) = item else { continue };
            let value: Value = serde_json::from_str(&frame.data).unwrap_or_default();
            match str(&value["type"]) {
                "backtest" => return Ok(value),
                "error" => return Err(Failure::new(what, str(&value["error"]["message"]))),
                _ => {
                    let (done, of) = (value["done"].as_u64(), value["of"].as_u64());
                    let now = done.zip(of).map_or(0, |(done, of)| done * 10 / of.max(1));
                    if now > tenths {
                        tenths = now;
                        context.io.note(format!("{}0 % of {} deliveries", now, of.unwrap_or(0)))?;
                    }
                }
            }
        }
    }
}

fn print(report: &Value, context: &mut Context<'_>) -> Result<()> {
    let n = |value: &Value| value.as_u64().unwrap_or(0);
    let mut table = Table::new(&["", "ACCEPTED", "FILTERED", "HELD"]);
    for (name, key) in [("happened", "happened"), ("would be", "would")] {
        let verdicts = &report[key];
        let cell = |verdict: &str| Cell::new(n(&verdicts[verdict]).to_string());
        table.row(vec![Cell::strong(name), cell("accepted"), cell("filtered"), cell("held")]);
    }
    context.print_table(&table)?;
    context.io.line("")?;
    let mut lines = vec![format!("{} deliveries", n(&report["deliveries"]))];
    if report["complete"] == false {
        lines.push("there are more than one backtest looks at; shorten `--since`".to_owned());
    }
    for (key, words) in [
        ("without_body", "whose payload is gone, which nobody can tell about"),
        ("duplicates", "would be recognised as earlier ones"),
        ("different", "decided differently"),
    ] {
        if n(&report[key]) > 0 {
            lines.push(format!("{} {words}", n(&report[key])));
        }
    }
    let distinct = n(&report["keys"]["distinct"]);
    if distinct > 0 {
        lines.push(format!("{distinct} sessions by key"));
    }
    lines.push(format!("{} turns at most", n(&report["turns"])));
    for agent in report["agents"].as_array().into_iter().flatten() {
        lines.push(format!("agent {}: {}", str(&agent["name"]), n(&agent["deliveries"])));
    }
    for reason in report["reasons"].as_array().into_iter().flatten() {
        let (status, count) = (str(&reason["status"]), n(&reason["deliveries"]));
        lines.push(format!("{status}: {count}: {}", str(&reason["reason"])));
    }
    for difference in report["differences"].as_array().into_iter().flatten() {
        let side = |side: &Value| {
            let why = [&side["reason"], &side["agent_id"]].into_iter().find(|it| it.is_string());
            format!("{} {}", str(&side["status"]), why.map_or("", str)).trim_end().to_owned()
        };
        lines.push(format!(
            "{}  {}  {} -> {}",
            str(&difference["delivery_id"]),
            str(&difference["event_type"]),
            side(&difference["happened"]),
            side(&difference["would"]),
        ));
    }
    for line in lines {
        context.io.line(one_line(&line))?;
    }
    Ok(())
}
