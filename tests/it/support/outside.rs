//! The hosts of senders: one HTTPS server on loopback that all their names lead to, with an
//! authority of its own. It starts when somebody comes, and writes down what was asked for.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bellpull::{
    fetch::{Https, Network, Resolver},
    trust,
};
use futures_util::future::BoxFuture;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::OnceCell,
};
use tokio_rustls::TlsAcceptor;

/// What `cases.py` made.
#[derive(Clone, Debug, Deserialize)]
pub struct Made {
    authority: String,
    certificate: String,
    key: String,
    files: BTreeMap<String, String>,
    /// Private keys of the senders.
    pub sns: String,
    pub paypal: String,
}

impl Made {
    pub fn read() -> Made {
        #[derive(Deserialize)]
        struct File {
            outside: Made,
        }
        let file: File = serde_json::from_str(include_str!("../senders/cases.json"))
            .expect("cases.py writes it");
        file.outside
    }
}

#[derive(Debug)]
pub struct Outside {
    made: Made,
    address: OnceCell<SocketAddr>,
    asked: Mutex<Vec<String>>,
}

impl Outside {
    pub fn new() -> Arc<Outside> {
        let asked = Mutex::default();
        Arc::new(Outside { made: Made::read(), address: OnceCell::new(), asked })
    }

    /// The network as servers have it, but for where names lead and who is trusted.
    pub fn network(self: &Arc<Outside>) -> Arc<dyn Network> {
        Arc::new(self.https(|_| true))
    }

    pub fn https(self: &Arc<Outside>, may: fn(IpAddr) -> bool) -> Https {
        let authority = CertificateDer::from_pem_slice(self.made.authority.as_bytes());
        let resolver = Arc::new(Here(self.clone()));
        Https::with(resolver, may, trust::of([authority.expect("a certificate")]))
            .expect("a client")
    }

    /// The paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    async fn address(self: &Arc<Outside>) -> SocketAddr {
        let start = || async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(self.clone().serve(listener));
            address
        };
        *self.address.get_or_init(start).await
    }

    async fn serve(self: Arc<Outside>, listener: TcpListener) {
        let certificate = CertificateDer::from_pem_slice(self.made.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.made.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("a certificate")], key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let (outside, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move { outside.answer(acceptor, stream).await });
        }
    }

    /// One request of a connection. `/to/…` leads elsewhere, and `/large.pem` does not end.
    async fn answer(&self, acceptor: TlsAcceptor, stream: TcpStream) -> Option<()> {
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        self.asked.lock().expect("not poisoned").push(path.clone());
        let (status, body) = match self.made.files.get(&path) {
            Some(file) => ("200 OK", file.clone()),
            None if path.starts_with("/?Action=ConfirmSubscription") => ("200 OK", String::new()),
            None if path == "/large.pem" => ("200 OK", "x".repeat(1024 * 1024)),
            None if path == "/moved.pem" => ("302 Found", String::new()),
            None => ("404 Not Found", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nlocation: /SimpleNotificationService-0a1b.pem\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }
}

/// Every name is this machine's.
struct Here(Arc<Outside>);

impl Resolver for Here {
    fn resolve(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let outside = self.0.clone();
        Box::pin(async move { Ok(vec![outside.address().await]) })
    }
}
