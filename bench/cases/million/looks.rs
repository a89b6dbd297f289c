//! What is asked for in a full database, and how long it takes.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::managed::Managed;
use crate::{
    load::{micros, percentile},
    server::Server,
    visitor::Visitor,
};

/// Each is asked for so many times: more than a hundred, so that p99 is not just the slowest.
const LOOKS: usize = 200;

/// What takes longer for all of them is asked for less often.
const LONGEST: Duration = Duration::from_secs(10);

/// Ids that paths are made of.
struct Known {
    agent: String,
    source: String,
    delivery: String,
    session: String,
}

impl Known {
    async fn of(server: &Server) -> anyhow::Result<Known> {
        let newest = server.get("/v1/deliveries?limit=1&status=accepted").await?;
        let id = |name: &str| {
            let id = newest["data"][0][name].as_str().map(str::to_owned);
            id.with_context(|| format!("the newest delivery's {name}"))
        };
        let source = server.get("/v1/sources/bench").await?;
        let source = source["id"].as_str().context("a source's id")?.to_owned();
        let (agent, delivery, session) = (id("agent_id")?, id("id")?, id("session_id")?);
        Ok(Known { agent, source, delivery, session })
    }

    /// All that says nothing to a reader of the tables.
    fn hidden(&self, managed: &Managed, page: String) -> Vec<String> {
        let Known { agent, source, delivery, session } = self;
        let Managed { environment, vault, deployment, file } = managed;
        let ids = [agent, source, delivery, session, environment, vault, deployment, file];
        let hidden = ids.into_iter().cloned().chain([page]);
        hidden.filter(|it| !it.is_empty()).collect()
    }
}

pub async fn lists(server: &Server, managed: &Managed) -> anyhow::Result<Vec<Vec<String>>> {
    let first = server.get("/v1/deliveries?limit=20").await?;
    let next = first["next_page"].as_str().unwrap_or_default().to_owned();
    let known = Known::of(server).await?;
    let Known { session, delivery, .. } = &known;
    let Managed { environment, vault, deployment, file } = managed;
    let paths = [
        "/v1/deliveries?limit=20".to_owned(),
        "/v1/deliveries?limit=100".to_owned(),
        format!("/v1/deliveries?limit=20&page={next}"),
        "/v1/deliveries?limit=20&source=bench".to_owned(),
        "/v1/deliveries?limit=20&status=accepted".to_owned(),
        "/v1/deliveries?limit=20&status=held".to_owned(),
        "/v1/deliveries?limit=20&outcome=succeeded".to_owned(),
        "/v1/deliveries?limit=20&outcome=failed".to_owned(),
        "/v1/deliveries?limit=20&event_type=invoice.payment_succeeded".to_owned(),
        "/v1/deliveries?limit=20&event_type=nothing.like.it".to_owned(),
        format!("/v1/deliveries?limit=20&session_id={session}"),
        format!("/v1/deliveries/{delivery}"),
        "/v1/sessions?limit=20".to_owned(),
        format!("/v1/sessions/{session}"),
        format!("/v1/sessions/{session}/events?limit=20"),
        "/v1/sources".to_owned(),
        "/v1/sources/bench/refusals?limit=20".to_owned(),
        "/v1/agents".to_owned(),
        "/v1/environments?limit=20".to_owned(),
        format!("/v1/environments/{environment}"),
        "/v1/vaults?limit=20".to_owned(),
        format!("/v1/vaults/{vault}"),
        format!("/v1/vaults/{vault}/credentials?limit=20"),
        "/v1/deployments?limit=20".to_owned(),
        format!("/v1/deployments/{deployment}"),
        "/v1/deployment_runs?limit=20".to_owned(),
        format!("/v1/deployment_runs?limit=20&deployment_id={deployment}"),
        "/v1/files?limit=20".to_owned(),
        format!("/v1/files/{file}"),
        "/v1/api_keys".to_owned(),
        "/v1/secrets".to_owned(),
        "/v1/audit?limit=20".to_owned(),
        "/v1/presets".to_owned(),
        "/openapi.json".to_owned(),
    ];
    let hidden = known.hidden(managed, next);
    // Its size is not told: the API sends what it has as it is.
    let look = async |path: &str| server.get(path).await.map(|_| 0);
    Ok(time(&paths, &hidden, look).await?.iter().map(Seen::times).collect())
}

/// What people look at, whole pages as a browser gets them first.
pub async fn pages(server: &Server, managed: &Managed) -> anyhow::Result<Vec<Vec<String>>> {
    let visitor = Visitor::sign_in(server).await?;
    let older = visitor.look("/deliveries").await?;
    let older = older.split_once("\" rel=\"next\"").and_then(|(it, _)| it.rsplit('"').next());
    let older = older.context("a link to older deliveries")?.replace("&#38;", "&");
    let page = older.split("page=").nth(1).unwrap_or_default().to_owned();
    let known = Known::of(server).await?;
    let mut paths = of_what_came(&known, older);
    paths.extend(of_what_is_managed(&known, managed));
    let hidden = known.hidden(managed, page);
    let seen = time(&paths, &hidden, async |path| visitor.load(path).await).await?;
    Ok(seen.iter().map(Seen::times_and_size).collect())
}

fn of_what_came(known: &Known, older: String) -> Vec<String> {
    let Known { agent, source, delivery, session } = known;
    vec![
        "/".to_owned(),
        "/needs".to_owned(),
        "/needs?kind=held".to_owned(),
        "/deliveries".to_owned(),
        older,
        format!("/deliveries?source={source}&status=accepted"),
        "/deliveries?status=held".to_owned(),
        "/deliveries?outcome=failed".to_owned(),
        "/deliveries?event_type=nothing.like.it".to_owned(),
        format!("/deliveries?q={session}"),
        // A part of one id, of all event types and of all bodies, and what nothing has.
        "/deliveries?q=0000999500".to_owned(),
        "/deliveries?q=payment_succeeded".to_owned(),
        "/deliveries?q=cus_N1x".to_owned(),
        "/deliveries?q=nothing.like.it".to_owned(),
        format!("/deliveries/{delivery}"),
        "/sessions".to_owned(),
        format!("/sessions?agent={agent}"),
        "/sessions?title=nothing".to_owned(),
        format!("/sessions/{session}"),
    ]
}

fn of_what_is_managed(known: &Known, managed: &Managed) -> Vec<String> {
    let agent = &known.agent;
    let Managed { environment, vault, deployment, .. } = managed;
    vec![
        "/agents".to_owned(),
        "/new-agent".to_owned(),
        format!("/agents/{agent}"),
        format!("/agents/{agent}/webhook"),
        "/sources".to_owned(),
        "/new-source".to_owned(),
        "/sources/bench".to_owned(),
        "/deployments".to_owned(),
        format!("/deployments/{deployment}"),
        format!("/deployments/{deployment}/edit"),
        "/environments".to_owned(),
        format!("/environments/{environment}"),
        "/vaults".to_owned(),
        format!("/vaults/{vault}"),
        "/files".to_owned(),
        "/keys".to_owned(),
        "/usage".to_owned(),
        "/audit".to_owned(),
        "/audit?action=vault.create".to_owned(),
        "/settings".to_owned(),
        "/reference".to_owned(),
        "/find?q=bench".to_owned(),
    ]
}

/// How one path was answered.
struct Seen {
    /// As the tables say it.
    path: String,
    latencies: Vec<u32>,
    /// The most that came for it.
    bytes: usize,
}

impl Seen {
    fn times(&self) -> Vec<String> {
        let less = match self.latencies.len() {
            LOOKS => String::new(),
            n => format!(" ({n} looks)"),
        };
        let mut row = vec![format!("`{}`{less}", self.path)];
        row.extend([0.5, 0.99, 1.0].map(|it| format!("{:.1}", percentile(&self.latencies, it))));
        row
    }

    fn times_and_size(&self) -> Vec<String> {
        let mut row = self.times();
        row.push(format!("{:.1}", self.bytes as f64 / 1000.0));
        row
    }
}

/// How long each takes, with ids out of sight. `look` answers how many bytes came.
async fn time(
    paths: &[String],
    hidden: &[String],
    look: impl AsyncFn(&str) -> anyhow::Result<usize>,
) -> anyhow::Result<Vec<Seen>> {
    let mut all = Vec::new();
    for path in paths {
        let shown = hidden.iter().fold(path.clone(), |shown, id| shown.replace(id.as_str(), "…"));
        let mut seen = Seen { path: shown, latencies: Vec::new(), bytes: 0 };
        let began = Instant::now();
        while seen.latencies.len() < LOOKS && began.elapsed() < LONGEST {
            let started = Instant::now();
            let bytes = look(path).await?;
            seen.latencies.push(micros(started.elapsed()));
            seen.bytes = seen.bytes.max(bytes);
        }
        all.push(seen);
    }
    Ok(all)
}
