//! The real binary as a child process, with its own data directory.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

/// Every wait of a test ends here at the latest.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `bellpull serve`. Killed when dropped.
pub struct Process {
    child: Child,
    pub url: String,
    pub data_dir: PathBuf,
    log: Arc<Mutex<String>>,
    pub http: reqwest::Client,
}

impl Process {
    /// Starts `serve` on a free port and waits until it is ready.
    pub async fn serve(data_dir: &Path, arguments: &[&str]) -> Process {
        Process::serve_with(data_dir, arguments, &[]).await
    }

    pub async fn serve_with(
        data_dir: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Process {
        let mut process = Process::spawn(data_dir, "127.0.0.1:0", arguments, environment);
        process.wait_ready().await;
        process
    }

    /// Starts `serve` at an address and waits for nothing.
    pub fn starting(data_dir: &Path, listen: &str, environment: &[(&str, &str)]) -> Process {
        let mut process = Process::spawn(data_dir, listen, &[], environment);
        process.url = format!("http://{listen}");
        process
    }

    fn spawn(
        data_dir: &Path,
        listen: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Process {
        let mut child = command()
            .arg("serve")
            .args(["--listen", listen, "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let log = Arc::new(Mutex::new(String::new()));
        let copy = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = copy.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        // A second installation of the same provider is refused, and that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Process { child, url: String::new(), data_dir: data_dir.to_owned(), log, http }
    }

    /// What the server has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    async fn wait_ready(&mut self) {
        let url = until("the server says where it listens", async || {
            if let Some(status) = self.child.try_wait().expect("the child can be looked at") {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            let log = self.log();
            let line = log.lines().find(|line| line.contains("bellpull is listening"))?;
            // In words and as JSON.
            let address = line.split("address").nth(1)?.trim_start_matches(['=', '"', ':']);
            let address = address.split([' ', '"']).next()?;
            Some(format!("http://{address}"))
        });
        self.url = url.await;
        until("the server is ready", async || {
            let answer = self.http.get(format!("{}/readyz", self.url)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -{signal}");
    }

    /// `kill -9`, and gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child can be waited for");
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// How it ended, once it did.
    pub async fn ended(mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the server ends", async || child.try_wait().expect("the child can be looked at"))
            .await
    }

    pub fn admin_key(&self) -> String {
        let key = std::fs::read_to_string(self.data_dir.join("admin.key")).expect("an admin key");
        key.trim().to_owned()
    }

    /// GET as admin, JSON back.
    pub async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(self.admin_key());
        json(request.send().await.expect("an answer")).await
    }

    /// A page, as whoever signs in with the admin's key sees it.
    pub async fn page(&self, path: &str) -> String {
        let cookie = |answer: &reqwest::Response| {
            let set = answer.headers().get("set-cookie").expect("a cookie").to_str().unwrap();
            set.split(';').next().unwrap_or_default().to_owned()
        };
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let (http, url) = (http.build().unwrap(), format!("{}/sign-in", self.url));
        let form = http.get(&url).send().await.unwrap();
        let (before, form) = (cookie(&form), form.text().await.unwrap());
        let token = form.split_once("name=\"csrf\" value=\"").and_then(|it| it.1.split_once('"'));
        let fields = format!("key={}&csrf={}", self.admin_key(), token.expect("a token").0);
        let request = http.post(url).header("cookie", before).body(fields);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let signed_in = cookie(&request.send().await.unwrap());
        let page = http.get(format!("{}{path}", self.url)).header("cookie", signed_in);
        page.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
    }

    /// POST as admin, JSON back.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(self.admin_key());
        let request = request.header("content-type", "application/json").body(body.to_string());
        json(request.send().await.expect("an answer")).await
    }
}

async fn json(response: reqwest::Response) -> Value {
    let text = response.text().await.expect("a body");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

/// The binary, without this machine's own configuration.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellpull"));
    let foreign = std::env::vars().map(|(name, _)| name).filter(|name| {
        ["BELLPULL_", "ANTHROPIC_", "OPENAI_"].iter().any(|prefix| name.starts_with(prefix))
    });
    for name in foreign {
        command.env_remove(name);
    }
    command
}

/// Runs a command of the binary to its end: exit code, standard output, standard error.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = command().args(arguments).stdin(Stdio::null()).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Asks again until there is an answer. Level-triggered: a state that holds is found, however late.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}
