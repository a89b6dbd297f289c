//! `web_fetch`: what is answered, and where nobody is taken.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bellpull::{
    domain::{
        access::{Network, network},
        toolset::{Domains, parse},
    },
    fetch::{
        Resolver, is_public,
        pages::{Internet, Page, Web as _},
    },
    trust,
};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// `here.example` is the server of the test; other names lead to the address in their first label.
struct Names(SocketAddr);

impl Resolver for Names {
    fn resolve(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let label = name.split('.').next().unwrap().replace('-', ".");
        let found = match name {
            "here.example" => self.0,
            _ => match label.replace("x", ":").parse::<IpAddr>() {
                Ok(address) => SocketAddr::new(address, 80),
                Err(_) => return Box::pin(async { Err(std::io::Error::other("no such name")) }),
            },
        };
        Box::pin(async move { Ok(vec![found]) })
    }
}

/// A site on loopback; `/to?<url>` redirects there.
struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::default());
        let heard: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                heard.lock().unwrap().push(path.clone());
                let (status, more, body) = match path.split_once('?') {
                    Some(("/to", url)) => {
                        ("302 Found", format!("location: {url}\r\n"), String::new())
                    }
                    _ if path == "/large" => ("200 OK", String::new(), "x".repeat(10_000)),
                    _ if path == "/missing" => ("404 Not Found", String::new(), String::new()),
                    _ => {
                        ("200 OK", "content-type: text/html\r\n".to_owned(), "<p>hello".to_owned())
                    }
                };
                let n = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\n{more}content-length: {n}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Site { address, asked }
    }

    /// Goes to whatever addresses this says.
    fn internet(&self, may: fn(IpAddr) -> bool) -> Internet {
        Internet::with(Arc::new(Names(self.address)), may, trust::of([])).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn only_here(address: IpAddr) -> bool {
    address == IpAddr::from([127, 0, 0, 1])
}

async fn get(internet: &Internet, url: &str) -> Result<Page, String> {
    internet.get(url, 1000, &|_: &str| Ok(())).await
}

#[tokio::test]
async fn a_page_is_read_to_its_bound() {
    let site = Site::start().await;
    let internet = site.internet(only_here);
    let page = get(&internet, "http://here.example/").await.unwrap();
    assert_eq!((page.status, &page.body[..], page.is_cut), (200, &b"<p>hello"[..], false));
    let page = get(&internet, "http://here.example/large").await.unwrap();
    assert_eq!((page.body.len(), page.is_cut), (1000, true));
    assert_eq!(get(&internet, "http://here.example/missing").await.unwrap().status, 404);
    let page = get(&internet, "http://here.example/to?/to?/there").await.unwrap();
    assert_eq!(page.url, "http://here.example/there");
    let round = get(&internet, "http://here.example/to?/to?/to?/to?/to?/to?/to?/x").await;
    assert!(round.unwrap_err().contains("more than 5 times"));
}

#[tokio::test]
async fn no_address_that_is_not_public_is_gone_to() {
    let site = Site::start().await;
    let internet = site.internet(is_public);
    let port = site.address.port();
    let urls = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost.:{port}/"),
        format!("http://here.example:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "http://192.168.0.1/".to_owned(),
        "http://172.16.0.1/".to_owned(),
        "http://[fe80::1]/".to_owned(),
        "http://[64:ff9b::a9fe:a9fe]/".to_owned(),
        // Names that lead there.
        "http://10-0-0-1.evil.example/".to_owned(),
        "http://169-254-169-254.evil.example/".to_owned(),
        "http://xxffffx127-0-0-1.evil.example/".to_owned(),
        "https://192-168-1-1.evil.example/".to_owned(),
        // What is no page of the web.
        "file:///etc/passwd".to_owned(),
        "ftp://here.example/".to_owned(),
        "http://user:pass@here.example/".to_owned(),
        "http:///".to_owned(),
        "nonsense".to_owned(),
    ];
    for url in urls {
        assert!(get(&internet, &url).await.is_err(), "{url}");
    }
    assert_eq!(site.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn no_redirect_leads_there_either() {
    let site = Site::start().await;
    let internet = site.internet(only_here);
    let redirected =
        async |to: &str| get(&internet, &format!("http://here.example/to?{to}")).await.unwrap_err();
    for to in [
        "http://169.254.169.254/latest/",
        "http://127.0.0.2/",
        "http://[::1]/",
        "//10.0.0.1/",
        "file:///etc/passwd",
        "http://a:b@here.example/",
    ] {
        let error = redirected(to).await;
        assert!(error.contains("redirects to where it may not be followed"), "{to}: {error}");
    }
    assert!(redirected("http://10-0-0-1.evil.example/").await.contains("no public address"));

    // Each host on the way is asked about.
    let asked = Mutex::new(Vec::new());
    let may = |host: &str| {
        asked.lock().unwrap().push(host.to_owned());
        if host == "here.example" { Ok(()) } else { Err("not there".to_owned()) }
    };
    let url = "http://here.example/to?http://elsewhere.example/";
    let error = internet.get(url, 1000, &may).await.unwrap_err();
    assert!(error.contains("not there"), "{error}");
    assert_eq!(*asked.lock().unwrap(), ["here.example", "elsewhere.example"]);
}

#[test]
fn domains_are_the_agents_and_hosts_the_environments() {
    let domains = |config: serde_json::Value| {
        let mut config = config;
        config["name"] = json!("web_fetch");
        let set = json!([{"type": "agent_toolset_20260401", "configs": [config]}]);
        parse(&set).map(|tools| Domains::of(&tools, "web_fetch"))
    };
    let allowed =
        domains(json!({"allowed_domains": ["a.example"], "max_content_tokens": 5})).unwrap();
    assert!(allowed.may("a.example") && allowed.may("x.a.example"));
    assert!(!allowed.may("b.example") && !allowed.may("xa.example"));
    assert_eq!(allowed.content_tokens_max, Some(5));
    let blocked = domains(json!({"blocked_domains": ["a.example"]})).unwrap();
    assert!(!blocked.may("x.a.example") && blocked.may("b.example"));
    for wrong in [
        json!({"allowed_domains": []}),
        json!({"allowed_domains": ["https://a.example"]}),
        json!({"allowed_domains": ["*.a.example"]}),
        json!({"allowed_domains": "a.example"}),
        json!({"allowed_domains": ["a.example"], "blocked_domains": ["b.example"]}),
        json!({"max_content_tokens": 0}),
    ] {
        let problem = domains(wrong.clone()).unwrap_err();
        assert!(problem.to_string().contains("plain host names"), "{wrong}: {problem}");
    }
    assert_eq!(network(Network::Unrestricted, Some(&[])), Network::None);
}
