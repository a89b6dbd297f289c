//! A changed source tried on deliveries that are stored.

use std::time::Instant;

use anyhow::ensure;
use serde_json::json;

use crate::{
    Plan,
    cases::accept::CONNECTIONS,
    load,
    report::{Report, median, range},
    server::Server,
};

/// The goal is 10 s for so many.
const DELIVERIES: usize = 100_000;

pub async fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[]).await?;
    let target = server.source().await?;
    server.pause_agents(true).await?;
    let mut n = 0;
    while n < DELIVERIES {
        n += load::run(&target, CONNECTIONS, plan.window).await?.latencies.len();
    }
    let busy = json!({
        "filter": r#"event_type.startsWith("invoice.") && body.data.object.amount > 100"#,
        "target": {"key": "{{ body.data.object.customer }}"},
        "message": "{{ body.type }}: {{ body.data.object.amount }} {{ body.data.object.currency }}",
        "rules": [{"when": "size(body.data.object.lines) > 5", "verdict": "held", "reason": "long"}],
        "debounce_seconds": 10,
    });
    let changes = [
        ("nothing changed", json!({})),
        ("a filter, a rule, a session key and a message", busy),
        ("the identity taken from the body", json!({"identity": ["/note"]})),
    ];
    let mut rows = Vec::new();
    for (name, changes) in changes {
        let mut seconds = Vec::new();
        for _ in 0..plan.rounds {
            let asked = json!({"source": changes, "differences": 0});
            let started = Instant::now();
            let answer = server.post("/v1/sources/bench/backtest", asked).await?;
            seconds.push(started.elapsed().as_secs_f64() * DELIVERIES as f64 / n as f64);
            let tried = answer["deliveries"].as_u64();
            ensure!(tried == Some(n as u64), "{tried:?} of {n} were tried: {answer}");
        }
        let cells = [name.to_owned(), format!("{:.1}", median(&seconds)), range(&seconds)];
        rows.push(cells.to_vec());
    }
    let title = format!("Backtest, SQLite: seconds for {DELIVERIES} deliveries (of {n} stored)");
    report.table(&title, &["what is tried", "median", "range"], &rows);
    Ok(())
}
