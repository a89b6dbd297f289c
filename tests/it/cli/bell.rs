//! A whole server in this process, and the client's command lines against it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use bellpull::{
    app::Server,
    cli::{self, Exit, Io},
    clock::Clock,
    config::{Config, Flags},
};
use clap::Parser as _;
use serde_json::Value;
use tempfile::TempDir;

/// The token of every source and agent in these stories.
pub const TOKEN: &str = "a-token-that-nobody-guesses";

#[derive(Debug, clap::Parser)]
#[command(name = "bellpull")]
struct Line {
    #[command(subcommand)]
    command: cli::Command,
}

/// A server with nothing but what its first start makes, and its data directory.
pub struct Bell {
    server: Server,
    directory: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output of a command that went well.
    #[track_caller]
    pub fn fine(self) -> String {
        assert_eq!(self.exit, Exit::Fine, "{}{}", self.out, self.err);
        self.out
    }

    /// What was told about a failure.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_eq!(self.exit, Exit::Failed, "{}{}", self.out, self.err);
        self.err
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.fine();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// What a command writes, while it writes.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// One JSON document per line.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bell {
    pub async fn hang() -> Bell {
        let directory = tempfile::tempdir().unwrap();
        let server = start(directory.path(), "127.0.0.1:0").await;
        Bell { server, directory }
    }

    /// Stops the server and starts it again, at the same address.
    pub async fn hang_again(self) -> Bell {
        // A server and its start are a large future.
        Box::pin(self.hang_again_after(std::future::ready(()))).await
    }

    /// The same, with something that happens in between.
    pub async fn hang_again_after(self, meanwhile: impl Future<Output = ()>) -> Bell {
        let Bell { server, directory } = self;
        let address = server.address.to_string();
        server.stop().await;
        meanwhile.await;
        Bell { server: start(directory.path(), &address).await, directory }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Runs a command line as the operator, who has the data directory.
    pub async fn run(&self, line: &[&str]) -> Ran {
        self.run_with(line, "").await
    }

    /// The same with an input.
    pub async fn run_with(&self, line: &[&str], input: &'static str) -> Ran {
        let (out, err) = (Written::default(), Written::default());
        let exit = self.write(line, input, &out, &err, |_| {}).await;
        Ran { exit, out: out.text(), err: err.text() }
    }

    /// Runs a command line that writes into `out` and `err`.
    pub async fn write(
        &self,
        line: &[&str],
        input: &'static str,
        out: &Written,
        err: &Written,
        change: impl FnOnce(&mut Io),
    ) -> Exit {
        run_at(&self.url(), self.directory.path(), line, input, out, err, change).await
    }

    /// The data directory, for commands that outlive the server.
    pub fn place(&self) -> (String, std::path::PathBuf) {
        (self.url(), self.directory.path().to_owned())
    }

    /// An agent of the built-in model, with a token.
    pub async fn agent(&self, name: &str) -> String {
        let line = ["agents", "create", "--name", name, "--model", "rehearsal", "--json"];
        let id = self.run(&line).await.json()["id"].as_str().unwrap().to_owned();
        let webhook = self.run(&["agents", "webhook", name, "--json"]).await.json();
        let key = webhook["secret_key"].as_str().unwrap();
        self.run(&["secrets", "set", key, "--value", TOKEN]).await.fine();
        id
    }
}

pub async fn run_at(
    url: &str,
    data_dir: &Path,
    line: &[&str],
    input: &'static str,
    out: &Written,
    err: &Written,
    change: impl FnOnce(&mut Io),
) -> Exit {
    let words = ["bellpull"].iter().chain(line).copied();
    let command = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command;
    let environment = BTreeMap::from([("BELLPULL_URL".to_owned(), url.to_owned())]);
    let mut io = Io::plain(input.as_bytes(), out.clone(), err.clone());
    change(&mut io);
    cli::run(command, &environment, data_dir.to_owned(), &mut io).await
}

async fn start(data_dir: &Path, listen: &str) -> Server {
    let flags = Flags {
        data_dir: Some(data_dir.to_owned()),
        listen: Some(listen.to_owned()),
        ..Flags::default()
    };
    let loaded =
        Config::load(None, &BTreeMap::new(), &flags, &|path| panic!("{} is read", path.display()));
    Server::start(loaded.unwrap(), Clock::system()).await.unwrap()
}
