//! The way out of a sandbox: a proxy in the server, for HTTP and for tunnels of TLS.
//!
//! A sandbox has no network but this: a socket in its view, which its first process forwards to from a
//! port that `HTTP_PROXY` names. Invariants: a host is gone to only if the policy has it; the proxy
//! resolves names itself and goes to public addresses alone, whatever the policy; each decision is
//! told; connections, bytes and waits have bounds. What is said inside a tunnel is between its ends: a
//! host that serves others under its name can be asked for them. Left out: who decides the policy.

mod forward;
mod request;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::forward::forward;
use self::request::{Request, Wanted};
use crate::{clock::Clock, domain::address::is_public};

/// Bounds of the way out of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections at once.
    pub connections_max: usize,
    /// Bytes in both directions together.
    pub bytes_max: u64,
    /// Seconds that finding and reaching a host may take.
    pub connect_seconds: u64,
    /// Seconds after which a connection is ended on which nothing is said.
    pub idle_seconds: u64,
    /// Ports of hosts that may be gone to.
    pub ports: Vec<u16>,
    /// What an environment that allows package managers may reach beside its own hosts.
    pub package_hosts: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections_max: 64,
            bytes_max: 4 << 30,
            connect_seconds: 10,
            idle_seconds: 300,
            ports: vec![80, 443],
            package_hosts: Vec::new(),
        }
    }
}

/// Which hosts may be gone to. None at all is no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Names, or `*.name` for what is beneath one.
    Limited(Vec<String>),
    /// Any public one.
    Unrestricted,
}

impl Policy {
    fn allows(&self, host: &str) -> bool {
        match self {
            Policy::Unrestricted => true,
            Policy::Limited(hosts) => hosts.iter().any(|allowed| {
                let allowed = allowed.trim_end_matches('.').to_ascii_lowercase();
                match allowed.strip_prefix("*.") {
                    Some(above) => {
                        host.strip_suffix(above).is_some_and(|it| it.len() > 1 && it.ends_with('.'))
                    }
                    None => host == allowed,
                }
            }),
        }
    }
}

/// What the proxy decided about one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub host: String,
    pub port: u16,
    /// Why not, if not.
    pub refused: Option<String>,
}

/// Finds addresses.
pub trait Names: Send + Sync {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// As the machine does it.
#[derive(Debug)]
pub struct System;

impl Names for System {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// What a proxy asks of its surroundings.
#[derive(Clone)]
pub struct Outside {
    pub names: Arc<dyn Names>,
    /// Which addresses are gone to.
    pub may: fn(IpAddr) -> bool,
    /// Told each decision, and must not wait.
    pub told: Arc<dyn Fn(Decision) + Send + Sync>,
    pub clock: Clock,
}

impl Outside {
    /// The internet.
    pub fn new(told: Arc<dyn Fn(Decision) + Send + Sync>, clock: Clock) -> Outside {
        Outside { names: Arc::new(System), may: is_public, told, clock }
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

/// The proxy of one sandbox. It and its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    socket: PathBuf,
    policy: Policy,
    stop: CancellationToken,
}

impl Proxy {
    /// Listens on a socket, which is made.
    pub fn start(
        socket: &Path,
        policy: Policy,
        options: Options,
        outside: Outside,
    ) -> io::Result<Proxy> {
        let listener = UnixListener::bind(socket)?;
        // Programs of a server that is root run as somebody else; who sees it is decided by the mount.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            policy: policy.clone(),
            connections: Semaphore::new(options.connections_max),
            bytes: AtomicU64::new(0),
            options,
            outside,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, shared, tasks.clone(), stop.clone()));
        Ok(Proxy { socket: socket.to_owned(), policy, stop })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Shared {
    policy: Policy,
    options: Options,
    outside: Outside,
    connections: Semaphore,
    bytes: AtomicU64,
}

/// How long, and how much, a refused client may go on sending.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1 << 20;

/// Pause after the system had no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

async fn accept(
    listener: UnixListener,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            shared.outside.clock.sleep(PAUSE).await;
            continue;
        };
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = Box::pin(shared.serve(stream)) => {}
            }
        });
    }
}

impl Shared {
    async fn serve(&self, mut stream: UnixStream) {
        let Ok(_permit) = self.connections.try_acquire() else {
            let n = self.options.connections_max;
            let why = format!("more than {n} connections at once");
            self.refuse(&mut stream, "503 Service Unavailable", &why).await;
            return;
        };
        let clock = &self.outside.clock;
        let wait = Duration::from_secs(self.options.connect_seconds);
        let (wanted, rest) = match clock.timeout(wait, request::read(&mut stream)).await {
            Ok(Ok(read)) => read,
            Ok(Err(why)) => {
                self.refuse(&mut stream, "400 Bad Request", &why).await;
                return;
            }
            Err(_) => return,
        };
        let Request { host, port, wanted } = wanted;
        let reached = self.reach(&host, port).await;
        (self.outside.told)(Decision {
            host: host.clone(),
            port,
            refused: reached.as_ref().err().map(|(_, why)| why.clone()),
        });
        let mut there = match reached {
            Ok(there) => there,
            Err((status, why)) => {
                self.refuse(&mut stream, status, &format!("{host}:{port}: {why}")).await;
                return;
            }
        };
        let _ = self.exchange(&mut stream, &mut there, wanted, &rest).await;
    }

    /// Answers, and takes in what is still being sent for a while: a socket that is closed with
    /// something unread in it resets the connection, and the answer would be lost on its way.
    async fn refuse(&self, stream: &mut UnixStream, status: &str, why: &str) {
        let all = async {
            answer(stream, status, why).await?;
            tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _ = self.outside.clock.timeout(LINGER, all).await;
    }

    /// A connection to a host that may be gone to; or the status to answer, and why.
    async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, (&'static str, String)> {
        let refused = |why: &str| Err(("403 Forbidden", why.to_owned()));
        if !self.options.ports.contains(&port) {
            return refused("this port is not one that may be gone to");
        }
        if !self.policy.allows(host) {
            return refused("this host is not one of the environment's allowed hosts");
        }
        if self.bytes.load(Ordering::Relaxed) >= self.options.bytes_max {
            return refused("this sandbox has sent and received as many bytes as it may");
        }
        let wait = Duration::from_secs(self.options.connect_seconds);
        let reaching = async {
            let mut found = match host.parse::<IpAddr>() {
                Ok(address) => vec![SocketAddr::new(address, port)],
                Err(_) => self.outside.names.resolve(host, port).await.map_err(|error| {
                    ("502 Bad Gateway", format!("its name cannot be resolved: {error}"))
                })?,
            };
            found.retain(|address| (self.outside.may)(address.ip()));
            if found.is_empty() {
                return refused("it has no public address");
            }
            TcpStream::connect(&found[..])
                .await
                .map_err(|error| ("502 Bad Gateway", format!("it cannot be reached: {error}")))
        };
        let late = ("504 Gateway Timeout", "it cannot be reached in time".to_owned());
        self.outside.clock.timeout(wait, reaching).await.unwrap_or(Err(late))
    }

    async fn exchange(
        &self,
        here: &mut UnixStream,
        there: &mut TcpStream,
        wanted: Wanted,
        rest: &[u8],
    ) -> io::Result<()> {
        let (mut from_here, mut to_here) = here.split();
        let (mut from_there, mut to_there) = there.split();
        let n_more = match wanted {
            Wanted::Tunnel => {
                to_here.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                u64::MAX
            }
            Wanted::Forward { head, body_bytes } => {
                to_there.write_all(&head).await?;
                body_bytes
            }
        };
        // Of what came with the head, too, not more than was announced: it would be another request.
        let n_rest = usize::try_from(n_more).unwrap_or(usize::MAX).min(rest.len());
        self.count(n_rest)?;
        to_there.write_all(&rest[..n_rest]).await?;
        let sent = self.copy(&mut from_here, &mut to_there, n_more - n_rest as u64);
        let received = self.copy(&mut from_there, &mut to_here, u64::MAX);
        tokio::try_join!(sent, received)?;
        Ok(())
    }

    /// Copies until the end, or as many bytes. A tunnel's end is passed on; a request's is not, as its
    /// answer comes on the same connection.
    async fn copy(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        mut n_more: u64,
    ) -> io::Result<()> {
        let idle = Duration::from_secs(self.options.idle_seconds);
        let mut buffer = vec![0; 16 << 10];
        while n_more > 0 {
            let n = buffer.len().min(usize::try_from(n_more).unwrap_or(usize::MAX));
            let reading = from.read(&mut buffer[..n]);
            let n = self.outside.clock.timeout(idle, reading).await.map_err(io::Error::other)??;
            if n == 0 {
                return to.shutdown().await;
            }
            self.count(n)?;
            let writing = to.write_all(&buffer[..n]);
            self.outside.clock.timeout(idle, writing).await.map_err(io::Error::other)??;
            n_more -= n as u64;
        }
        Ok(())
    }

    fn count(&self, n: usize) -> io::Result<()> {
        let n_before = self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        if n_before + n as u64 > self.options.bytes_max {
            return Err(io::Error::other("too many bytes"));
        }
        Ok(())
    }
}

async fn answer(stream: &mut UnixStream, status: &str, why: &str) -> io::Result<()> {
    let body = format!("bellpull's proxy: {why}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_allowed_by_name_and_beneath_a_name() {
        let hosts = ["Example.com.", "*.example.org"].map(str::to_owned).to_vec();
        let policy = Policy::Limited(hosts);
        for host in ["example.com", "a.example.org", "a.b.example.org"] {
            assert!(policy.allows(host), "{host}");
        }
        for host in
            ["a.example.com", "example.org", "evilexample.org", ".example.org", "example.com.evil"]
        {
            assert!(!policy.allows(host), "{host}");
        }
    }
}
