//! The HTTP layer: routes, authentication, JSON in and out, streams.
//!
//! A handler reads a request, calls a verb of the store or the receive path, and shows what came
//! back. Invariants: every answer carries a `request-id`; nothing about a resource is said before the
//! caller is known; a 5xx holds no internal text, and its detail is in the log once, with the
//! request's id. Left out: the socket, and everything that happens after an answer.

mod auth;
mod compat;
mod error;
mod frame;
mod health;
mod hooks;
mod input;
mod intake;
mod managed;
mod metrics;
mod openapi;
mod prefix;
mod query;
mod routes;
mod status;
mod stream;
mod ui;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use self::status::{Sandbox, SandboxStanding};
use self::{error::Error, routes::Routes};
use crate::{
    domain::{cost::MicroUsd, credential::Validation},
    id::{CredentialId, SessionId, VaultId},
    ingest::Ingest,
    preview::Previews,
    signal::Signals,
    store::{self, Store},
};

/// How the server is reached and what it may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Scheme, host and port under which senders reach this server, and the path below which a proxy
    /// serves it, if it does; no slash at the end.
    pub public_url: Option<String>,
    /// Where it listens: what URLs begin with when there is no public one.
    pub listen: SocketAddr,
    /// Directories in which projects may lie.
    pub project_roots: Vec<PathBuf>,
    /// Hosts near by that callbacks may go to.
    pub callback_hosts: Vec<String>,
    /// Models of which it is known what they cost, as the operator names them.
    pub priced_models: Vec<String>,
    /// Dollars that everything together may cost in a day.
    pub day_cost_max: Option<MicroUsd>,
    /// Whether `/metrics` needs no key.
    pub metrics_public: bool,
    /// Silence on a stream after which a comment is sent, so that no proxy ends it.
    pub heartbeat: Duration,
    /// Streams of events that are open at once on this server; 503 beyond.
    pub streams_max: usize,
    pub files: Files,
}

/// How large files may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// Bytes of one file.
    pub bytes_max: usize,
    /// Bytes of all files together.
    pub total_bytes_max: usize,
    /// Seconds that one has to arrive.
    pub upload_seconds_max: u64,
}

impl Default for Files {
    fn default() -> Files {
        Files { bytes_max: 500 << 20, total_bytes_max: 20 << 30, upload_seconds_max: 1800 }
    }
}

impl Options {
    pub const STREAMS_MAX: usize = 4096;

    pub fn new(listen: SocketAddr) -> Options {
        Options {
            public_url: None,
            listen,
            project_roots: Vec::new(),
            callback_hosts: Vec::new(),
            priced_models: Vec::new(),
            day_cost_max: None,
            metrics_public: false,
            heartbeat: Duration::from_secs(10),
            streams_max: Options::STREAMS_MAX,
            files: Files::default(),
        }
    }
}

/// What is told of this server on its settings page. Nothing in here is a secret.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub settings: Vec<Setting>,
    /// Providers of models: name, whether they can be asked, and why.
    pub providers: Vec<(&'static str, bool, String)>,
}

/// One setting, as it counts now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key in the file, or the name of a variable that has none.
    pub key: String,
    /// The variable that sets it.
    pub variable: Option<String>,
    /// Nothing where nothing is set; of a secret only that it is.
    pub value: Option<String>,
    pub origin: &'static str,
    /// Whether a change takes effect at the next start only, and whether one waits for that.
    pub needs_restart: bool,
    pub waits: bool,
}

/// What the handlers work with. Clones are the same server.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

/// What an [`App`] consists of. One count for all of it: every layer of every request has a clone.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub ingest: Arc<Ingest>,
    pub signals: Signals,
    pub previews: Previews,
    /// Tries credentials, where this server can.
    pub probe: Option<Arc<dyn Probe>>,
    /// Where programs run that agents ask for, if anybody looked.
    pub sandbox: Option<Sandbox>,
    options: ArcSwap<Options>,
    /// What URLs begin with where no public one is set. It is where the server listens, for as long as
    /// it does.
    here: String,
    facts: ArcSwap<Facts>,
    /// Ends the streams when the server stops.
    pub shutdown: CancellationToken,
    ready: health::Ready,
    streams: stream::Streams,
    /// What waits, as it was last looked up for `/metrics`.
    oldest: metrics::Oldest,
    /// Who is signed in to the pages.
    visitors: ui::Visitors,
    /// What the pages were told lately.
    looks: ui::Looks,
}

/// What is found out for us elsewhere: it tries credentials at the servers that they are for, and knows
/// which keys there are.
pub trait Probe: Send + Sync + std::fmt::Debug {
    fn validate(
        &self,
        vault: VaultId,
        credential: CredentialId,
    ) -> BoxFuture<'static, store::Result<Validation>>;

    /// The variable of the key that a model needs and this server has not.
    fn missing_key(&self, model: &str) -> Option<&'static str>;
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    pub fn new(
        store: Store,
        ingest: Arc<Ingest>,
        signals: Signals,
        previews: Previews,
        options: Options,
        shutdown: CancellationToken,
    ) -> App {
        let here = format!("http://{}", options.listen);
        let options = ArcSwap::from_pointee(options);
        let (ready, visitors) = (health::Ready::default(), ui::Visitors::default());
        let streams = stream::Streams::default();
        let oldest = metrics::Oldest::default();
        App(Arc::new(Parts {
            store,
            ingest,
            signals,
            previews,
            probe: None,
            sandbox: None,
            options,
            here,
            facts: ArcSwap::from_pointee(Facts::default()),
            shutdown,
            ready,
            streams,
            oldest,
            visitors,
            looks: ui::Looks::default(),
        }))
    }

    /// With a way to try credentials; before anybody has a clone.
    pub fn with_probe(mut self, probe: Arc<dyn Probe>) -> App {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.probe = Some(probe);
        }
        self
    }

    /// With what was found out about the sandbox; before anybody has a clone.
    pub fn with_sandbox(mut self, sandbox: Sandbox) -> App {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.sandbox = Some(sandbox);
        }
        self
    }

    pub fn options(&self) -> Arc<Options> {
        self.options.load_full()
    }

    /// Takes changed options over; requests that are under way keep the old ones.
    pub fn set_options(&self, options: Options) {
        self.options.store(Arc::new(options));
    }

    /// What is told of this server.
    pub fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    pub fn set_facts(&self, facts: Facts) {
        self.facts.store(Arc::new(facts));
    }

    /// The URL of a path of this server, as somebody outside reaches it.
    fn url(&self, path: &str) -> String {
        let options = self.options.load();
        [options.public_url.as_deref().unwrap_or(&self.here), path].concat()
    }

    /// Lets a change of configuration take effect: on this node with this answer, elsewhere soon.
    async fn configured(&self) {
        if let Err(error) = self.ingest.registry.refresh().await {
            // The change is committed, and found with the next look at the revision.
            tracing::error!(detail = format!("{error:#}"), "the registry was not refreshed");
        }
        self.signals.configured();
    }

    /// A session has got something to do: its worker and its watchers look.
    fn ring(&self, session: &SessionId) {
        self.signals.due();
        self.signals.changed(session);
    }
}

/// What needs no key of the API, or asks for one by itself.
fn open_routes() -> Routes {
    hooks::routes().merge(openapi::routes()).merge(health::routes()).merge(metrics::routes())
}

fn keyed_routes() -> Routes {
    managed::routes().merge(compat::routes()).merge(status::routes())
}

/// The whole of HTTP: the routes, and around them what every answer has in common. That is no layer of
/// theirs, which would be one more service behind a pointer for each of them and for each request.
#[derive(Clone, Debug)]
pub struct Http {
    app: App,
    routes: Router,
}

impl Http {
    pub fn new(app: App) -> Http {
        let keyed = keyed_routes().into_router();
        let keyed = keyed.layer(middleware::from_fn_with_state(app.clone(), auth::require));
        let routes = open_routes().into_router().merge(keyed).merge(ui::routes(&app));
        // Whatever a proxy left the prefix on is served as if it had not. Only what no route takes is
        // looked at for that, so a webhook costs nothing more.
        let below = routes.clone().fallback(nowhere).with_state(app.clone());
        let inward = async |State(app): State<App>, mut request: Request| {
            if prefix::inward(&mut request, app.options().prefix()) {
                below.oneshot(request).await.into_response()
            } else {
                nowhere(State(app), request).await
            }
        };
        let routes = routes.fallback(inward).with_state(app.clone());
        Http { app, routes }
    }

    pub async fn answer(&self, request: Request) -> Response {
        frame::around(&self.app, request, |request| self.routes.clone().oneshot(request)).await
    }
}

/// What no route takes. Under the API only callers that it knows are told so.
async fn nowhere(State(app): State<App>, request: Request) -> Response {
    if ui::wants_page(&request) {
        return ui::nowhere(app, request).await;
    }
    let path = request.uri().path();
    if ["/v1", "/api"].iter().any(|it| is_below(path, it))
        && let Err(error) = auth::admit(&app, request.method(), request.headers())
    {
        return error.into_response();
    }
    let (path, _) = crate::domain::text::first_chars(path, 200);
    Error::not_found(format!("there is nothing at `{path}`")).into_response()
}

/// Whether a path is this one or one below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
