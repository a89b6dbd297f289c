//! What sessions cost that wait for their models.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::{
    Plan,
    load::Connection,
    model::Model,
    report::Report,
    server::{Server, cpu_micros},
};

const N_SESSIONS: usize = 200;

pub async fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let window = plan.window * 3;
    // Nobody is answered before the window is over.
    let mut model = Model::start(window + Duration::from_secs(30)).await?;
    let url = format!("http://{}", model.address);
    let environment = [
        ("ANTHROPIC_BASE_URL", url.as_str()),
        ("ANTHROPIC_API_KEY", "key"),
        ("BELLPULL_WORKER__TURNS_MAX", "256"),
    ];
    let server = Server::start_with(directory.path(), &[], &environment).await?;
    let idle = measure(&server, window).await?;
    let target = server.source().await?;
    let mut connection = Connection::open(&target).await?;
    for _ in 0..N_SESSIONS {
        connection.ring().await?;
    }
    for _ in 0..N_SESSIONS {
        model.asked.recv().await.context("a request to the model")?;
    }
    let waiting = measure(&server, window).await?;
    let row = |what: &str, (share, memory): (f64, f64)| {
        vec![what.to_owned(), format!("{:.2}", share * 100.0), format!("{memory:.0}")]
    };
    let rows = [row("no session", idle), row("200 sessions that wait for their models", waiting)];
    let columns = ["what", "% of one processor", "resident MB"];
    report.table("Many sessions at once, SQLite", &columns, &rows);
    Ok(())
}

async fn measure(server: &Server, window: Duration) -> anyhow::Result<(f64, f64)> {
    let (began, before) = (Instant::now(), cpu_micros(server.pid())?);
    tokio::time::sleep(window).await;
    let used = cpu_micros(server.pid())? - before;
    Ok((used / began.elapsed().as_micros() as f64, server.memory()?.0))
}
