//! Durable accepts per second, and what one costs.

use anyhow::Context;

use crate::{
    Plan,
    baseline::{self, Baseline},
    database::Database,
    load::{self, Sample, Target},
    report::{Report, flush_ms, median, range},
    server::{self, Server},
};

pub const CONNECTIONS: usize = 64;

/// Windows of one kind.
#[derive(Default)]
struct Series {
    rates: Vec<f64>,
    cpu_micros: Vec<f64>,
    all: Sample,
}

impl Series {
    async fn window(&mut self, target: &Target, pid: u32, plan: &Plan) -> anyhow::Result<()> {
        let before = server::cpu_micros(pid)?;
        let sample = load::run(target, CONNECTIONS, plan.window).await?;
        let cpu = server::cpu_micros(pid)? - before;
        self.cpu_micros.push(cpu / sample.latencies.len() as f64);
        self.rates.push(sample.per_second());
        self.all.join(sample);
        Ok(())
    }

    fn row(&self, name: &str, baseline: &Series) -> Vec<String> {
        let ratios: Vec<f64> =
            self.rates.iter().zip(&baseline.rates).map(|(ours, theirs)| ours / theirs).collect();
        vec![
            name.to_owned(),
            format!("{:.0}", median(&self.rates)),
            range(&self.rates),
            format!("{:.2}", median(&ratios)),
            format!("{:.1}", median(&self.cpu_micros)),
            format!("{:.2}", self.all.percentile(0.5)),
            format!("{:.2}", self.all.percentile(0.99)),
        ]
    }
}

const COLUMNS: [&str; 7] =
    ["server", "requests/s", "range", "ratio", "CPU µs each", "p50 ms", "p99 ms"];

pub async fn sqlite(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let flush = flush_ms(directory.path())?;
    let server = Server::start(directory.path(), &[]).await?;
    let title = format!(
        "Accepts, SQLite: {CONNECTIONS} connections, 1 KiB bodies (a flush takes {flush:.2} ms)"
    );
    let one_row = Database::Sqlite(directory.path().join("one-row.db"));
    let one_row = ("one row in SQLite", Baseline::start(Some(&one_row))?);
    compare(plan, server, Database::sqlite(directory.path()), one_row, &title, report).await
}

pub async fn postgres(plan: &Plan, url: &str, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let database = Database::postgres(url).await?;
    let server = Server::start_on(directory.path(), &database, &[]).await?;
    let title = format!("Accepts, PostgreSQL: {CONNECTIONS} connections, 1 KiB bodies");
    let one_row = Database::postgres(url).await?;
    let one_row = ("one row in PostgreSQL", Baseline::start(Some(&one_row))?);
    compare(plan, server, database, one_row, &title, report).await
}

/// What the commits were since the server started, on average.
struct Commits {
    /// From the beginning of the transaction until it was synced.
    ms: f64,
    accepts: f64,
}

impl Commits {
    async fn of(server: &Server) -> anyhow::Result<Commits> {
        let metrics = server.open("/metrics").await?.text().await?;
        let number = |name: String| -> anyhow::Result<f64> {
            let value =
                metrics.lines().find_map(|line| line.strip_prefix(&*name)?.strip_prefix(' '));
            Ok(value.with_context(|| format!("no metric {name}"))?.parse()?)
        };
        let average = |name: &str| {
            let sum = number(format!("bellpull_{name}_sum"))?;
            anyhow::Ok(sum / number(format!("bellpull_{name}_count"))?)
        };
        let ms = average("store_commit_duration_seconds")? * 1e3;
        Ok(Commits { ms, accepts: average("store_commit_accepts")? })
    }
}

const TURNS_DONE: &str = "select count(*) from turns where status = 'done'";

fn target_of(baseline: &Baseline) -> Target {
    Target {
        address: baseline.address,
        path: "/api/webhook/bench".to_owned(),
        token: baseline::TOKEN.to_owned(),
    }
}

/// Windows of the baseline, of the same with one row for each request, of accepts alone, and of accepts
/// while turns run, in turns.
async fn compare(
    plan: &Plan,
    server: Server,
    database: Database,
    (one_row_name, one_row): (&str, Baseline),
    title: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let baseline = Baseline::start(None)?;
    let yardstick = target_of(&baseline);
    let target = server.source().await?;
    server.pause_agents(true).await?;
    // Everybody has seen every path once before it counts.
    let least_target = target_of(&one_row);
    for target in [&yardstick, &least_target, &target] {
        load::run(target, CONNECTIONS, plan.window / 4).await?;
    }
    let (mut without, mut least, mut paused, mut running) =
        (Series::default(), Series::default(), Series::default(), Series::default());
    for _ in 0..plan.rounds {
        without.window(&yardstick, baseline.pid(), plan).await?;
        least.window(&least_target, one_row.pid(), plan).await?;
        paused.window(&target, server.pid(), plan).await?;
    }
    let (memory, commits) = (server.memory()?, Commits::of(&server).await?);
    server.pause_agents(false).await?;
    let mut without_again = Series::default();
    let before = database.count(TURNS_DONE).await? as f64;
    let started = std::time::Instant::now();
    for _ in 0..plan.rounds {
        without_again.window(&yardstick, baseline.pid(), plan).await?;
        running.window(&target, server.pid(), plan).await?;
    }
    let turns =
        (database.count(TURNS_DONE).await? as f64 - before) / started.elapsed().as_secs_f64();
    let rows = [
        without.row("no storage", &without),
        least.row(one_row_name, &without),
        paused.row("Bellpull, agent paused", &without),
        running.row("Bellpull, turns running", &without_again),
    ];
    report.table(title, &COLUMNS, &rows);
    report.note(format!(
        "{title}: while the agent was paused a commit took {:.2} ms and held {:.0} accepts",
        commits.ms, commits.accepts
    ));
    report.note(format!(
        "{title}: {:.0} MB resident after the accepts, {:.0} MB at most; {turns:.0} turns/s beside \
         the load that had turns",
        memory.0, memory.1
    ));
    Ok(())
}
