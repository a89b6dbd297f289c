//! A PostgreSQL server of one test's own, which may be killed and started again.

use std::{
    fs::File,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::process::until;

/// Below the range from which the kernel takes the ports of outgoing connections, so that nobody
/// takes it while the server is away.
fn free_port() -> u16 {
    let ports = 20_000..32_000;
    let first = u16::try_from(std::process::id() % 12_000).expect("it is small");
    let mut candidates = ports.clone().cycle().skip(first.into()).take(ports.len());
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.find(is_free).expect("a port is free")
}

#[derive(Debug)]
pub struct Cluster {
    binaries: PathBuf,
    directory: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let binaries = binaries();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        if let Some((user, group)) = lent() {
            chown(directory.path(), Some(user), Some(group)).expect("root may do that");
        }
        let data = directory.path().join("data");
        let output = as_postgres(&binaries.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .output()
            .expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut cluster = Cluster { binaries, directory, port: free_port(), server: None };
        cluster.start_again().await;
        cluster
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Lets the server work again and waits until it answers, however long it has to recover.
    pub async fn start_again(&mut self) {
        self.signal_all("CONT");
        until("PostgreSQL is up", async || {
            let gone = match &mut self.server {
                Some(server) => server.try_wait().expect("it is our child").is_some(),
                None => true,
            };
            // It ends by itself where processes of the life before still hold its memory.
            if gone {
                self.server = Some(self.spawn());
            }
            let (client, connection) =
                tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.ok()?;
            let work = async move { client.simple_query("select 1").await };
            let (answer, _) = tokio::join!(work, connection);
            answer.ok().map(drop)
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let log = self.directory.path().join("log");
        let log = File::options().create(true).append(true).open(log).expect("a file for the log");
        as_postgres(&self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-p", &self.port.to_string()])
            .stdout(log.try_clone().expect("a copy of a handle"))
            .stderr(log)
            .spawn()
            .expect("PostgreSQL starts")
    }

    /// `kill -9` of the server; its other processes see that and end.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("it is up");
        server.kill().expect("it can be killed");
        server.wait().expect("it can be waited for");
    }

    /// An immediate shutdown: every connection is cut, nothing is written any more.
    pub fn cut_off(&mut self) {
        let mut server = self.server.take().expect("it is up");
        signal("QUIT", server.id());
        server.wait().expect("it can be waited for");
    }

    /// Every process sleeps: connections stay open, new ones are taken by the kernel, and nothing
    /// is answered.
    pub fn freeze(&mut self) {
        self.signal_all("STOP");
    }

    /// The server first: it makes no more of the others then.
    fn signal_all(&self, name: &str) {
        let Some(server) = &self.server else { return };
        signal(name, server.id());
        let children = format!("/proc/{0}/task/{0}/children", server.id());
        let children = std::fs::read_to_string(children).expect("its processes are listed");
        for child in children.split_whitespace() {
            signal(name, child.parse().expect("the id of a process"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.signal_all("CONT");
            self.cut_off();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            eprintln!("--- the log of PostgreSQL ---\n{}", log.unwrap_or_default());
        }
    }
}

/// To a process that may be gone.
fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([format!("-{name}"), process.to_string()]).output();
    status.expect("kill runs");
}

/// Where initdb and postgres are: as `./test` looks for them.
#[expect(clippy::disallowed_methods, reason = "the tests have no config to read the environment")]
fn binaries() -> PathBuf {
    if let Ok(given) = std::env::var("BELLPULL_TEST_POSTGRES_BIN") {
        return given.into();
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = installed.filter_map(|it| {
        let major: u32 = it.file_name().to_str()?.parse().ok()?;
        let binaries = it.path().join("bin");
        binaries.join("initdb").exists().then_some((major, binaries))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|it| it.join("initdb").exists());
    installed.max().map(|(_, binaries)| binaries).or(on_path).unwrap_or_else(|| {
        panic!(
            "this test needs a PostgreSQL of its own, and no initdb was found: run ./test, or name \
             its directory with BELLPULL_TEST_POSTGRES_BIN"
        )
    })
}

/// PostgreSQL refuses to run as root, so root lends it another user.
fn as_postgres(program: &Path) -> Command {
    let mut command = match lent() {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={group}")]);
            command.arg("--clear-groups").arg(program);
            command
        }
    };
    command.current_dir("/").env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// User and group, where this is root.
fn lent() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let ids = |name: &str| {
        let passwd = std::fs::read_to_string("/etc/passwd").expect("every system has one");
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map_while(|field| field.parse().ok());
        Some((fields.next()?, fields.next()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("there is a user `nobody`"))
}
