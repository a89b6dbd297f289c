//! `bellpull demo --agent-work`: a CI webhook arrives, and an agent mends the failing test.
//!
//! A small repository with a broken program is made in the demo's directory. A signed `workflow_run` of
//! GitHub rings; the agent runs the test in its sandbox, reads, edits and runs it again. Without a key
//! the rehearsal plays a script and says so; with one, that provider's model does the work by itself.
//! What the agent left behind is read here and never run.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{
    super::{Server, http, log},
    DemoArgs, follow, load,
};
use crate::{clock::Clock, config::FileText, domain::model::REHEARSAL, model::SCRIPT_MARK, vault};

/// Whose keys a demo may use; nothing else of the environment reaches it.
const MODEL_VARIABLES: [&str; 4] =
    ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"];

const BROKEN: &str = "#!/bin/sh\n# The sum of an invoice's lines.\nsum=0\nfor line in \"$@\"; do \
    sum=$((sum - line)); done\necho \"$sum\"\n";
const TEST: &str = "#!/bin/sh\ngot=$(sh total.sh 2 3 5)\nif [ \"$got\" = 10 ]; then echo \"all tests \
    passed\"; else echo \"total.sh 2 3 5: expected 10, got $got\"; exit 1; fi\n";

const SYSTEM: &str = "You mend failing builds. When an event says that one failed, run `sh test.sh` in \
    the project, find the cause, mend it with the smallest change, and run the test again. Say in two \
    sentences what was wrong and what you changed.";

fn script() -> String {
    let steps = json!([
        {"say": "This is a rehearsal: a script, no AI. The build failed, so the test is run first.",
            "calls": [["bash", {"command": "sh test.sh"}]]},
        {"say": "It adds up wrongly. The program is read.",
            "calls": [["read", {"file_path": "total.sh"}]]},
        {"say": "It subtracts where it should add.", "calls": [["edit", {"file_path": "total.sh",
            "old_string": "sum - line", "new_string": "sum + line"}]]},
        {"say": "Once more.", "calls": [["bash", {"command": "sh test.sh"}]]},
        {"say": "`total.sh` subtracted each line instead of adding it. It adds now, and the test passes."},
    ]);
    format!("{SCRIPT_MARK}{steps}")
}

/// A server with a project, and somebody who may ring.
pub(super) struct Stage {
    pub(super) server: Server,
    project: PathBuf,
    secret: SecretString,
}

impl Stage {
    pub(super) async fn open(
        args: &DemoArgs,
        directory: &Path,
        environment: &BTreeMap<String, String>,
        out: &mut dyn Write,
    ) -> anyhow::Result<Stage> {
        let project = make_project(directory)?;
        let of_models = |(name, value): (&String, &String)| {
            MODEL_VARIABLES.contains(&name.as_str()).then(|| (name.clone(), value.clone()))
        };
        let environment: BTreeMap<_, _> = environment.iter().filter_map(of_models).collect();
        let without = load(args, directory, &environment, None).await?;
        let model = without.config.models.default_model();
        let secret = vault::generate_token("whk_");
        let bytes = config(model, &project, directory, &secret).into_bytes();
        let file = FileText { path: directory.join("demo.json"), bytes };
        let loaded = load(args, directory, &environment, Some(&file)).await?;
        log::start(&loaded.config.log);
        let server = Server::start(loaded, Clock::system()).await?;
        writeln!(out, "Bellpull is up at {} with a temporary data directory.", server.url())?;
        match model {
            REHEARSAL => writeln!(out, "Model: `rehearsal`, built in, offline, no AI: a script.")?,
            model => writeln!(out, "Model: {model}, with this environment's key. It costs money.")?,
        }
        writeln!(out, "A project with a failing test: {}\n", project.display())?;
        Ok(Stage { server, project, secret })
    }

    pub(super) async fn show(&self, directory: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
        let answer = ring(&self.server.url(), &self.secret).await?;
        let session = answer["session_id"].as_str();
        let session = session.with_context(|| format!("nobody got the event: {answer}"))?;
        let status = answer["status"].as_str().unwrap_or_default();
        writeln!(out, "  github        {status:<10} a workflow run failed")?;
        writeln!(out, "\n── {session} ──")?;
        out.flush()?;
        follow(&self.server, directory, session).await?;
        let changed = self.project.join("total.sh");
        let now = std::fs::read_to_string(&changed).context("read what was mended")?;
        if now == BROKEN {
            bail!("the agent changed nothing in {}", changed.display());
        }
        writeln!(out, "\nWhat it changed in total.sh:\n")?;
        let lines = BROKEN.lines().zip(now.lines());
        for (before, after) in lines.filter(|(before, after)| before != after) {
            writeln!(out, "  - {before}\n  + {after}")?;
        }
        writeln!(out)?;
        out.flush()?;
        Ok(())
    }
}

/// Sends the event as GitHub would: signed over its bytes.
async fn ring(url: &str, secret: &SecretString) -> anyhow::Result<Value> {
    let body = event().to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let signature = vault::hex(hmac::sign(&key, body.as_bytes()).as_ref());
    let request = http::client()?
        .post(format!("{url}/api/webhook/github"))
        .header("content-type", "application/json")
        .header("x-github-event", "workflow_run")
        .header("x-github-delivery", "2b6f4a10-demo-4c1d-9a51-7f0f2f6a42aa")
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .body(body);
    let response = request.send().await.context("send a webhook")?;
    let (status, text) = (response.status(), response.text().await?);
    if !status.is_success() {
        bail!("the webhook was answered with {status}: {text}");
    }
    serde_json::from_str(&text).context("read the answer")
}

fn make_project(directory: &Path) -> anyhow::Result<PathBuf> {
    let project = directory.join("projects/invoices");
    std::fs::create_dir_all(&project).context("make the project")?;
    std::fs::write(project.join("total.sh"), BROKEN)?;
    std::fs::write(project.join("test.sh"), TEST)?;
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=demo", "-c", "user.email=demo@bell.example"]);
        git.args(arguments).current_dir(&project).output()
    };
    // A repository is nicer to look at; the demo goes without where there is no git.
    if git(&["init", "--quiet"]).is_ok() {
        let _ = git(&["add", "--all"]);
        let _ = git(&["commit", "--quiet", "--message", "invoices"]);
    }
    if rustix::process::geteuid().is_root() {
        give_away(&project)?;
    }
    Ok(project)
}

/// Programs of agents never run as root, and so not in what is root's.
fn give_away(path: &Path) -> anyhow::Result<()> {
    let user = crate::tool::sandbox::Options::default().user;
    std::os::unix::fs::lchown(path, Some(user), Some(user))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}

fn config(model: &str, project: &Path, root: &Path, secret: &SecretString) -> String {
    let system = if model == REHEARSAL { script() } else { SYSTEM.to_owned() };
    // JSON is a form of the file, too.
    let off = |name: &str| json!({"name": name, "enabled": false});
    json!({
        "agents": {"mechanic": {
            "model": model,
            "system": system,
            "tools": [{"type": "agent_toolset_20260401",
                "configs": [off("web_fetch"), off("web_search")]}],
        }},
        "webhooks": {"github": {
            "preset": "github",
            "secret": secret.expose_secret(),
            "agent": "mechanic",
            "project": project,
            "filter": "event_type == \"workflow_run.completed\" && body.workflow_run.conclusion == \"failure\"",
        }},
        "projects": {"roots": [root]},
        "budgets": {"turn_model_calls": 30, "turn_seconds": 300},
    })
    .to_string()
}

fn event() -> Value {
    json!({
        "action": "completed",
        "workflow_run": {
            "id": 4711, "name": "test", "head_branch": "main", "conclusion": "failure",
            "head_sha": "8c1f0e5d6b7a4f3e2d1c0b9a8f7e6d5c4b3a2f1e",
            "html_url": "https://github.com/bell-example/invoices/actions/runs/4711",
        },
        "repository": {"full_name": "bell-example/invoices"},
        "sender": {"login": "ring-bearer", "type": "User"},
    })
}
