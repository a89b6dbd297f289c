//! The one way out: hosts that are allowed, at public addresses, through the proxy.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bellpull::{
    clock::Clock,
    domain::address::is_public,
    tool::egress::{Decision, Names, Options, Outside, Policy, Proxy},
};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::World;

/// Names as the test has them, whatever the port.
struct Book(Vec<(&'static str, IpAddr)>);

impl Names for Book {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let found = self.0.iter().filter(|(name, _)| *name == host);
        let found: Vec<_> = found.map(|(_, address)| SocketAddr::new(*address, port)).collect();
        Box::pin(async move {
            if found.is_empty() { Err(io::Error::other("no such name")) } else { Ok(found) }
        })
    }
}

/// A server that answers each request with what it was asked.
async fn echo() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = vec![0; 64 << 10];
                let mut n = 0;
                while !asked[..n].windows(4).any(|it| it == b"\r\n\r\n") {
                    match stream.read(&mut asked[n..]).await {
                        Ok(0) | Err(_) => return,
                        Ok(more) => n += more,
                    }
                }
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {n}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&asked[..n]).await;
            });
        }
    });
    port
}

struct Way {
    world: World,
    _proxy: Proxy,
    decisions: Arc<Mutex<Vec<Decision>>>,
    port: u16,
}

/// Where loopback is the internet, as there is none here.
fn loopback(address: IpAddr) -> bool {
    is_public(address) || address == IpAddr::from([127, 0, 0, 1])
}

async fn way(policy: Policy, may: fn(IpAddr) -> bool, options: Options) -> Way {
    let mut world = World::new().await;
    let port = echo().await;
    let decisions: Arc<Mutex<Vec<Decision>>> = Arc::default();
    let told = decisions.clone();
    let here = IpAddr::from([127, 0, 0, 1]);
    let outside = Outside {
        names: Arc::new(Book(vec![
            ("good.example", here),
            ("deep.good.example", here),
            ("other.example", here),
            ("inner.example", IpAddr::from([10, 0, 0, 1])),
            ("metadata.example", IpAddr::from([169, 254, 169, 254])),
        ])),
        may,
        told: Arc::new(move |decision| told.lock().unwrap().push(decision)),
        clock: Clock::system(),
    };
    let options = Options { ports: vec![80, 443, port], ..options };
    let socket = world.sandbox.socket("proxy-of-a-test");
    let proxy = Proxy::start(&socket, policy, options, outside).unwrap();
    world.network = Some(socket);
    Way { world, _proxy: proxy, decisions, port }
}

impl Way {
    /// Asks as programs do that know of no proxy but by their environment, with bash alone.
    async fn get(&self, url: &str) -> String {
        let ask = format!(
            "exec 5<>/dev/tcp/127.0.0.1/3128; printf 'GET {url} HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n' >&5; timeout 10 cat <&5; exec 5>&-"
        );
        self.world.said(&ask).await
    }

    async fn tunnel(&self, host: &str) -> String {
        let ask = format!(
            "exec 5<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT {host} HTTP/1.1\\r\\n\\r\\nGET /inside HTTP/1.1\\r\\n\\r\\n' >&5; timeout 2 cat <&5; exec 5>&-"
        );
        self.world.said(&ask).await
    }

    fn refused(&self) -> Vec<String> {
        let decisions = self.decisions.lock().unwrap();
        decisions.iter().filter(|it| it.refused.is_some()).map(|it| it.host.clone()).collect()
    }
}

#[tokio::test]
async fn allowed_hosts_are_reached_and_no_others() {
    let hosts = ["good.example", "*.good.example"].map(str::to_owned).to_vec();
    let way = way(Policy::Limited(hosts), loopback, Options::default()).await;
    let port = way.port;
    let said = way.get(&format!("http://good.example:{port}/a?b")).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("GET /a?b HTTP/1.1"), "{said}");
    assert!(
        said.contains(&format!("host: good.example:{port}")),
        "the host that was checked: {said}"
    );
    let said = way.get(&format!("http://deep.good.example:{port}/")).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let said = way.tunnel(&format!("good.example:{port}")).await;
    assert!(said.contains("200 Connection established") && said.contains("GET /inside"), "{said}");
    for host in ["other.example", "127.0.0.1", "good.example.evil.example"] {
        let said = way.get(&format!("http://{host}:{port}/")).await;
        assert!(
            said.starts_with("HTTP/1.1 403") && said.contains("allowed hosts"),
            "{host}: {said}"
        );
    }
    let said = way.get("http://good.example:22/").await;
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    let refused = way.refused();
    assert_eq!(
        refused,
        ["other.example", "127.0.0.1", "good.example.evil.example", "good.example"]
    );
    assert_eq!(way.decisions.lock().unwrap().len(), 7);
    // There is no other way.
    let said =
        way.world.said(&format!("timeout 5 bash -c '</dev/tcp/127.0.0.1/{port}' 2>&1")).await;
    assert!(said.contains("refused"), "{said}");
    assert_eq!(
        way.world.said("echo $HTTPS_PROXY $http_proxy").await,
        "http://127.0.0.1:3128 http://127.0.0.1:3128"
    );
}

#[tokio::test]
async fn no_policy_reaches_what_is_not_public() {
    let way = way(Policy::Unrestricted, is_public, Options::default()).await;
    for host in [
        "good.example",
        "inner.example",
        "metadata.example",
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "[::1]",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "metadata.google.internal",
        "localhost",
    ] {
        let said = way.get(&format!("http://{host}:80/latest/meta-data/")).await;
        let is_refused = said.starts_with("HTTP/1.1 403") || said.starts_with("HTTP/1.1 502");
        assert!(is_refused, "{host}: {said}");
    }
    assert_eq!(way.refused().len(), 14);
}

#[tokio::test]
async fn bytes_and_connections_are_bounded() {
    let options = Options { connections_max: 2, bytes_max: 20_000, ..Options::default() };
    let way = way(Policy::Unrestricted, loopback, options).await;
    let port = way.port;
    let ask = "for i in 5 6 7; do eval \"exec $i<>/dev/tcp/127.0.0.1/3128\"; printf 'CONNECT good.example:PORT HTTP/1.1\\r\\n\\r\\n' >&$i; IFS= read -r -t 5 line <&$i; echo \"$line\"; done";
    let said = way.world.said(&ask.replace("PORT", &port.to_string())).await;
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let open = "HTTP/1.1 200 Connection established";
    assert_eq!(lines, [open, open, "HTTP/1.1 503 Service Unavailable"], "{said}");
    way.world.handle().await.restart();
    let flood = format!(
        "exec 5<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT good.example:{port} HTTP/1.1\\r\\n\\r\\n' >&5; head -c 4M /dev/zero >&5; exec 5>&-"
    );
    way.world.said(&flood).await;
    let said = way.get(&format!("http://good.example:{port}/")).await;
    assert!(said.starts_with("HTTP/1.1 403") && said.contains("as many bytes as it may"), "{said}");
}

#[tokio::test]
async fn a_refusal_is_read_by_a_program_that_is_still_sending() {
    let hosts = vec!["good.example".to_owned()];
    let way = way(Policy::Limited(hosts), loopback, Options::default()).await;
    let ask = "for i in {1..50}; do exec 5<>/dev/tcp/127.0.0.1/3128; printf 'PUT http://other.example/ HTTP/1.1\\r\\nContent-Length: 500000\\r\\n\\r\\n' >&5; head -c 500000 /dev/zero >&5; timeout 10 cat <&5 | grep -c 'allowed hosts'; exec 5>&-; done | grep -c 1";
    assert_eq!(way.world.said(ask).await, "50");
}
