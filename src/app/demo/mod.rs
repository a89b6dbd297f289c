//! `bellpull demo`: a whole server in a temporary directory, and real-shaped webhooks that arrive.
//!
//! Everything goes through the front door over HTTP: three sources with tokens of their own, four
//! requests of which one is a repetition, and the transcripts as they are written. Nothing is faked
//! but the senders; the model is the built-in rehearsal, which says that it is no AI. `--agent-work` is
//! another show: [`work`].

mod work;

use std::{collections::BTreeMap, io::Write, path::Path, time::Duration};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{Server, http, log};
use crate::{
    cli,
    clock::Clock,
    config::{self, Config, DeclaredSource, FileText, Flags, Loaded},
    domain::{budget::Budgets, source::SourceDefinition, verifier::Verifier},
    vault,
};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// End when every transcript is complete, instead of staying up
    #[arg(long)]
    pub once: bool,
    /// Let an agent mend a failing test when a CI webhook arrives, in a sandbox; with the key of a model
    /// in the environment that model does it, without one a script plays it
    #[arg(long)]
    pub agent_work: bool,
    /// Address and port to listen on; another port is taken when this one is in use
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4100")]
    pub listen: String,
}

/// How long the whole show may take before it is called a failure, and where a real model plays in it.
const SHOW_MAX: Duration = Duration::from_secs(60);
const WORK_MAX: Duration = Duration::from_secs(300);

/// One sender's request.
struct Ring {
    source: &'static str,
    story: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
}

const GITHUB: Ring = Ring {
    source: "github",
    story: "an issue was opened",
    headers: &[
        ("x-github-event", "issues"),
        ("x-github-delivery", "6f1c4b1e-demo-4c1d-9a51-7f0f2f6a42aa"),
    ],
    body: include_str!("github.json"),
};

const RINGS: [Ring; 4] = [
    GITHUB,
    Ring {
        source: "stripe",
        story: "an invoice was paid; longer than a message shows, so the agent reads on",
        headers: &[("idempotency-key", "evt_1QdemoInvoicePaid")],
        body: include_str!("stripe.json"),
    },
    Ring {
        source: "alertmanager",
        story: "a disk is about to fill",
        headers: &[],
        body: include_str!("alertmanager.json"),
    },
    Ring { story: "the same delivery again, as senders do", ..GITHUB },
];

pub async fn demo(args: &DemoArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    if args.agent_work {
        return show_work(args, directory.path(), out).await;
    }
    let tokens: BTreeMap<&str, SecretString> = ["github", "stripe", "alertmanager"]
        .map(|source| (source, vault::generate_token("whk_")))
        .into();
    let loaded = load(args, directory.path(), &BTreeMap::new(), None).await?;
    let server = start(loaded, &tokens).await?;
    let url = server.url();
    writeln!(out, "Bellpull is up at {url} with a temporary data directory.")?;
    writeln!(out, "Model: `rehearsal`, built in, offline, no AI. Three sources ring:\n")?;
    let show = tokio::time::timeout(SHOW_MAX, ring_all(&server, directory.path(), &tokens, out));
    let result = match show.await {
        Ok(result) => result,
        Err(_) => Err(anyhow::anyhow!("the transcripts were not complete after {SHOW_MAX:?}")),
    };
    if result.is_ok() && !args.once {
        invite(&server, directory.path(), &tokens, out)?;
        tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    }
    server.stop().await;
    result
}

async fn show_work(args: &DemoArgs, directory: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let environment = config::environment();
    let stage = work::Stage::open(args, directory, &environment, out).await?;
    let result = match tokio::time::timeout(WORK_MAX, stage.show(directory, out)).await {
        Ok(result) => result,
        Err(_) => Err(anyhow::anyhow!("the work was not done after {WORK_MAX:?}")),
    };
    if result.is_ok() && !args.once {
        look(&stage.server, directory, out)?;
        tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    }
    stage.server.stop().await;
    result
}

/// A configuration for a temporary server: of a file that is made up, if any, and of what is given.
async fn load(
    args: &DemoArgs,
    directory: &Path,
    environment: &BTreeMap<String, String>,
    file: Option<&FileText>,
) -> anyhow::Result<Loaded> {
    let listen = match tokio::net::TcpListener::bind(&args.listen).await {
        Ok(_) => args.listen.clone(),
        Err(_) => "127.0.0.1:0".to_owned(),
    };
    let flags =
        Flags { data_dir: Some(directory.join("data")), listen: Some(listen), ..Flags::default() };
    // Nothing of this machine's own configuration: a demo never touches real data.
    let loaded = Config::load(file, environment, &flags, &|_| {
        Err(std::io::Error::other("a demo reads no files"))
    });
    let mut loaded = loaded.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    // A demo must run on a small disk too; what it stores is a few kilobytes.
    loaded.config.limits.free_disk_bytes_min = 0;
    loaded.config.log.filter = "warn".to_owned();
    Ok(loaded)
}

async fn start(
    mut loaded: Loaded,
    tokens: &BTreeMap<&str, SecretString>,
) -> anyhow::Result<Server> {
    log::start(&loaded.config.log);
    loaded.declared.sources = tokens
        .iter()
        .map(|(name, token)| {
            let mut definition = SourceDefinition::new(&Verifier::Bearer {});
            definition.secret_key = Some(crate::domain::secret::source_key(name));
            let secret = Some(token.clone());
            let name = (*name).to_owned();
            let (environment, callback, budgets) = (None, None, Budgets::default());
            DeclaredSource { name, definition, environment, secret, callback, budgets }
        })
        .collect();
    Server::start(loaded, Clock::system()).await
}

async fn ring_all(
    server: &Server,
    directory: &Path,
    tokens: &BTreeMap<&str, SecretString>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let client = http::client()?;
    let mut sessions = Vec::new();
    for ring in &RINGS {
        let token = tokens.get(ring.source).context("every source has a token")?;
        let answer = send(&client, &server.url(), ring, token).await?;
        let session = answer["session_id"].as_str().context("the answer names a session")?;
        let status = answer["status"].as_str().unwrap_or_default();
        writeln!(out, "  {:<13} {:<10} {}", ring.source, status, ring.story)?;
        writeln!(out, "  {:<13} {:<10} -> {session}", "", "")?;
        let expected =
            if sessions.contains(&session.to_owned()) { "duplicate" } else { "accepted" };
        if status != expected {
            bail!("`{}` should have been {expected}: {answer}", ring.source);
        }
        if status == "accepted" {
            sessions.push(session.to_owned());
        }
    }
    out.flush()?;
    for session in sessions {
        writeln!(out, "\n── {session} ──")?;
        out.flush()?;
        follow(server, directory, &session).await?;
    }
    Ok(())
}

async fn send(
    client: &reqwest::Client,
    url: &str,
    ring: &Ring,
    token: &SecretString,
) -> anyhow::Result<Value> {
    let mut request = client
        .post(format!("{url}/api/webhook/{}", ring.source))
        .bearer_auth(token.expose_secret())
        .header("content-type", "application/json")
        .body(ring.body);
    for (name, value) in ring.headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.context("send a webhook")?;
    let (status, text) = (response.status(), response.text().await?);
    if !status.is_success() {
        bail!("the webhook was answered with {status}: {text}");
    }
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| json!({})))
}

/// A command line of the client.
#[derive(Debug, clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: cli::Command,
}

/// The transcript, live, by the same command that a person would type.
async fn follow(server: &Server, directory: &Path, session: &str) -> anyhow::Result<()> {
    let (url, data) = (server.url(), directory.join("data").display().to_string());
    let words = ["bellpull", "tail", session, "--until-idle", "--url", &url, "--data-dir", &data];
    let line = <Line as clap::Parser>::try_parse_from(words)?;
    let mut io = cli::Io::process(&config::environment());
    match cli::run(line.command, &BTreeMap::new(), directory.join("data"), &mut io).await {
        cli::Exit::Fine => Ok(()),
        cli::Exit::Failed | cli::Exit::WrongUse => {
            bail!("{session} could not be followed to its end")
        }
    }
}

/// What to try next, ready to be pasted.
fn invite(
    server: &Server,
    directory: &Path,
    tokens: &BTreeMap<&str, SecretString>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let url = server.url();
    let token = tokens.get("stripe").context("every source has a token")?;
    writeln!(out, "\nRing it yourself:\n")?;
    writeln!(out, "  curl {url}/api/webhook/stripe \\")?;
    writeln!(out, "    -H 'Authorization: Bearer {}' \\", token.expose_secret())?;
    writeln!(out, "    -d '{{\"type\":\"payout.paid\",\"amount\":1200}}'\n")?;
    look(server, directory, out)
}

/// Where it can be looked at.
fn look(server: &Server, directory: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let (url, data) = (server.url(), directory.join("data"));
    writeln!(out, "It stays up until Ctrl-C.")?;
    writeln!(out, "Look at it in the browser: {url}/")?;
    writeln!(out, "  sign in with the key in {}", data.join("admin.key").display())?;
    writeln!(out, "or in another terminal:")?;
    writeln!(out, "  bellpull tail --url {url} --data-dir {}\n", data.display())?;
    out.flush()?;
    Ok(())
}
