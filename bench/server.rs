//! The server as a process: started, spoken to, and looked at from outside.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{database::Database, load::Target};

/// The program that is measured, where it is not the one that was built along.
pub static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// A running `bellpull serve`, with one named source and its token. Killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub data_dir: PathBuf,
    /// From the start of the process to the first answer of `/healthz`, and of `/readyz`.
    pub healthy_after: Duration,
    pub ready_after: Duration,
    http: reqwest::Client,
}

const SOURCE: &str = "bench";
const TOKEN: &str = "a-token-for-the-benchmark";

impl Server {
    pub async fn start(data_dir: &Path, arguments: &[&str]) -> anyhow::Result<Server> {
        Server::start_with(data_dir, arguments, &[]).await
    }

    /// On this database, which need not be in the data directory.
    pub async fn start_on(
        data_dir: &Path,
        database: &Database,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let mut environment = environment.to_vec();
        let arguments = match database {
            Database::Sqlite(_) => vec![],
            Database::Postgres(url) => {
                // Not made by itself where data and key may be on different machines.
                let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
                environment.push(("BELLPULL_VAULT_KEY", key));
                vec!["--database-url", url]
            }
        };
        Server::start_with(data_dir, &arguments, &environment).await
    }

    pub async fn start_with(
        data_dir: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        let address = free_address()?;
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_bellpull"));
        let mut command = Command::new(PROGRAM.get_or_init(built));
        for (name, _) in std::env::vars() {
            if ["BELLPULL_", "ANTHROPIC_", "OPENAI_"].iter().any(|it| name.starts_with(it)) {
                command.env_remove(name);
            }
        }
        let started = Instant::now();
        let mut child = command
            .arg("serve")
            .args(["--listen", &address.to_string(), "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let stderr = child.stderr.take().context("standard error is a pipe")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("WARN") || line.contains("ERROR") {
                    eprintln!("{line}");
                }
            }
        });
        let healthy_after = answers(&http, address, "/healthz", started).await?;
        let ready_after = answers(&http, address, "/readyz", started).await?;
        let data_dir = data_dir.to_owned();
        Ok(Server { child, address, data_dir, healthy_after, ready_after, http })
    }

    /// Makes the source, and tells where its webhooks go.
    pub async fn source(&self) -> anyhow::Result<Target> {
        let source = json!({"name": SOURCE, "preset": "bearer", "secret": TOKEN});
        self.post("/v1/sources", source).await?;
        Ok(Target {
            address: self.address,
            path: format!("/api/webhook/{SOURCE}"),
            token: TOKEN.to_owned(),
        })
    }

    /// Lets everything be accepted and nothing be worked on.
    pub async fn pause_agents(&self, paused: bool) -> anyhow::Result<()> {
        let verb = if paused { "pause" } else { "resume" };
        let agents = self.get("/v1/agents").await?;
        for agent in agents["data"].as_array().context("a list of agents")? {
            let id = agent["id"].as_str().context("an agent's id")?;
            self.post(&format!("/api/agents/{id}/{verb}"), json!({})).await?;
        }
        Ok(())
    }

    pub fn admin_key(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.data_dir.join("admin.key"))?.trim().to_owned())
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("http://{}{path}", self.address));
        answer(request.bearer_auth(self.admin_key()?)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("http://{}{path}", self.address));
        let request = request.header("content-type", "application/json").body(body.to_string());
        answer(request.bearer_auth(self.admin_key()?)).await
    }

    /// Stores a file.
    pub async fn upload(&self, name: &str, content: &str) -> anyhow::Result<Value> {
        let body = format!(
            "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             content-type: text/plain\r\n\r\n{content}\r\n--x--\r\n"
        );
        let request = self.http.post(format!("http://{}/v1/files", self.address));
        let request = request.header("content-type", "multipart/form-data; boundary=x").body(body);
        answer(request.bearer_auth(self.admin_key()?)).await
    }

    /// An answer whose body is left open.
    pub async fn open(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let request = self.http.get(format!("http://{}{path}", self.address));
        Ok(request.bearer_auth(self.admin_key()?).send().await?.error_for_status()?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in MB, now and at its highest.
    pub fn memory(&self) -> anyhow::Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let megabytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kilobytes / 1000.0)
        };
        Ok((megabytes("VmRSS:").context("VmRSS")?, megabytes("VmHWM:").context("VmHWM")?))
    }

    /// Ends it as an operator would.
    pub fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used so far, in microseconds.
pub fn cpu_micros(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("a name in parentheses")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks * 1_000_000.0 / rustix::param::clock_ticks_per_second() as f64)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn answers(
    http: &reqwest::Client,
    address: SocketAddr,
    path: &str,
    started: Instant,
) -> anyhow::Result<Duration> {
    while started.elapsed() < Duration::from_secs(60) {
        let asked = http.get(format!("http://{address}{path}")).send().await;
        if asked.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(started.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!("{path} did not answer within a minute")
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{status}: {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
