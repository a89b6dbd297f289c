//! The MCP servers of sessions: connections to them, their tools, and calls.
//!
//! Invariants: a session has one connection to a server at most, and it ends with the turn; nothing is
//! sent where the operator or the session's environment does not let it; a tool whose description
//! changed since it was first seen is known as changed until somebody allows a call of it. Lists of
//! tools are kept for a while, by server and by who asks. Left out: what may be called, which is
//! `agent::permission`'s, and the protocol, which is `tool::mcp`'s.

mod renew;
mod validate;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use secrecy::SecretString;
use tokio::{sync::Mutex as Lock, time::Instant};

use super::{Runtime, credentials};
use crate::{
    agent::Remote,
    domain::{
        access::{self, Network},
        credential::{Auth, server_key},
        environment::EnvironmentConfig,
        event::Block,
        session::Session,
        text::{first_chars, one_line},
        toolset::{Policy, TOOLS_MAX, Toolset, mcp_policy, offered_name},
    },
    fetch::servers::Servers,
    id::{CredentialId, SessionId},
    store::{PinnedBy, SealedCredential, Store},
    tool::{
        self,
        mcp::{Connection, Error, Options, Tool, Way},
        sandbox::Spec,
    },
    vault::Vault,
};

/// A server that is a program names itself by this and a name of the configuration.
const PROGRAM: &str = "stdio:";

/// What goes out to servers. Clones share everything.
#[derive(Clone, Debug)]
pub struct Mcp(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Servers,
    options: Options,
    /// Commands that the operator named.
    programs: BTreeMap<String, Vec<String>>,
    store: Store,
    vault: Arc<Vault>,
    connections: Mutex<HashMap<(SessionId, String), Slot>>,
    lists: Mutex<HashMap<ListKey, List>>,
}

/// Whom a list of tools was told: a server, and who asked.
type ListKey = (String, Option<(CredentialId, i64)>);

/// A list of tools, and when it was told.
type List = (Instant, Arc<Vec<Tool>>);

/// The connection of a session to a server, if there is one.
type Slot = Arc<Lock<Option<Connection>>>;

/// What is said about tools that no model can be told of, and why not.
const LEFT_OUT: &str = "these of its tools are left out";
const TAKEN: &str = "another tool has its name";
const TOO_MANY: &str = "the session has too many tools";

/// And about those that are not what was agreed to.
const CHANGED: &str = "it describes these of its tools otherwise than before, and calls of them wait \
    until somebody allows one";

/// Lists that are kept.
const LISTS_MAX: usize = 1024;

/// A tool of a server that a session has.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) server: String,
    pub(super) tool: Tool,
    /// As the model knows it.
    pub(super) name: String,
    pub(super) policy: Policy,
    pub(super) is_changed: bool,
}

/// What is wrong with a server, for the session's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: &'static str,
    pub(super) server: String,
    pub(super) message: String,
    /// Whether it stays as it is, so that one turn of the session tells it for all.
    pub(super) once: bool,
}

impl Trouble {
    fn of(server: &str, error: &Error) -> Trouble {
        let kind = match error {
            Error::Unauthorized(_) => "mcp_authentication_failed_error",
            Error::Failed(_) | Error::Unknown(_) => "mcp_connection_failed_error",
        };
        let message = format!("the MCP server `{server}`: {error}");
        Trouble { kind, server: server.to_owned(), message, once: false }
    }

    /// What there is to say about single tools of a server, all in one. The turn goes on.
    fn of_tools(server: &str, what: &str, tools: &[String], once: bool) -> Option<Trouble> {
        let n_more = tools.len().saturating_sub(TOLD_TOOLS_MAX);
        let mut told = tools[..tools.len() - n_more].join("; ");
        if n_more > 0 {
            told = format!("{told}; and {n_more} more");
        }
        let message = format!("the MCP server `{server}`: {what}: {told}");
        let (kind, server) = ("unknown_error", server.to_owned());
        (!tools.is_empty()).then_some(Trouble { kind, server, message, once })
    }
}

/// Characters of a tool's name that are told, and how many tools at once.
const TOLD_CHARS_MAX: usize = 64;
const TOLD_TOOLS_MAX: usize = 20;

/// The name that a server gave a tool, as people see it.
fn quoted(tool: &str) -> String {
    let tool = one_line(tool);
    let (tool, _) = first_chars(&tool, TOLD_CHARS_MAX);
    format!("`{tool}`")
}

/// A server of a session.
struct Wanted<'a> {
    name: &'a str,
    url: &'a str,
}

impl Mcp {
    pub fn new(
        servers: Servers,
        options: Options,
        programs: BTreeMap<String, Vec<String>>,
        store: Store,
        vault: Arc<Vault>,
    ) -> Mcp {
        let (connections, lists) = (Mutex::default(), Mutex::default());
        Mcp(Arc::new(Shared { servers, options, programs, store, vault, connections, lists }))
    }

    /// Ends the connections of a session.
    pub(super) fn close(&self, session: &SessionId) {
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|(of, _), _| of != session);
    }

    fn kept(&self, key: &ListKey, now: Instant) -> Option<Arc<Vec<Tool>>> {
        let lists = self.0.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, list) = lists.get(key)?;
        let age = now.saturating_duration_since(*at);
        (age < Duration::from_secs(self.0.options.tools_seconds)).then(|| list.clone())
    }

    fn keep(&self, key: ListKey, now: Instant, list: Arc<Vec<Tool>>) {
        let mut lists = self.0.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= LISTS_MAX {
            let patience = Duration::from_secs(self.0.options.tools_seconds);
            lists.retain(|_, (at, _)| now.saturating_duration_since(*at) < patience);
            if lists.len() >= LISTS_MAX {
                lists.clear();
            }
        }
        lists.insert(key, (now, list));
    }

    fn slot(&self, session: &SessionId, server: &str) -> Slot {
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.entry((session.clone(), server.to_owned())).or_default().clone()
    }

    /// The credential for a server, of the first vault that has one.
    async fn credential(
        &self,
        session: &Session,
        url: &str,
    ) -> Result<Option<SealedCredential>, Error> {
        if session.vault_ids.is_empty() {
            return Ok(None);
        }
        let found = self.0.store.usable_credentials(&session.vault_ids).await;
        let found =
            found.map_err(|error| failed("its credentials cannot be read", &error.detail()))?;
        Ok(found.into_iter().find(|it| it.credential.auth.serves(url)))
    }

    /// What a server is told as proof of who asks. With `fresh` a token that can be renewed is.
    async fn token(&self, found: &SealedCredential, fresh: bool) -> Result<SecretString, Error> {
        if let Auth::McpOauth { expires_at, refresh: Some(_), .. } = &found.credential.auth {
            let soon = self.0.store.clock().now().plus(renew::AHEAD);
            if fresh || expires_at.is_some_and(|at| at <= soon) {
                return renew::token(self, found.clone()).await.map_err(|failed| failed.error());
            }
        }
        let secrets = self.open(found)?;
        Ok(secrets.value.expose().to_owned().into())
    }

    fn open(&self, found: &SealedCredential) -> Result<crate::domain::credential::Secrets, Error> {
        credentials::open(&self.0.vault, found)
            .map_err(|error| failed("its credential cannot be used", &error.to_string()))
    }
}

/// What the log of this server knows more about.
fn failed(what: &str, detail: &str) -> Error {
    tracing::error!(detail, "{what}");
    Error::Failed(what.to_owned())
}

/// What a session's agent names.
fn wanted(session: &Session) -> Vec<Wanted<'_>> {
    let servers = session.agent.mcp_servers.iter();
    servers
        .filter_map(|server| {
            Some(Wanted { name: server["name"].as_str()?, url: server["url"].as_str()? })
        })
        .filter(|server| {
            session.agent.tools.iter().any(|set| {
                matches!(set, Toolset::Mcp { mcp_server_name, .. } if mcp_server_name == server.name)
            })
        })
        .collect()
}

/// Whether an environment lets its sessions ask a server: one that lists the hosts that are reached has
/// to list this one too, or say that servers are.
fn may_ask(place: &EnvironmentConfig, url: &str) -> Result<(), Error> {
    let Network::Limited(hosts) = place.network() else { return Ok(()) };
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let listed = host.is_some_and(|host| hosts.iter().any(|it| access::fits(&host, it)));
    if listed || place.allows_mcp_servers() {
        return Ok(());
    }
    let why = "the session's environment lists neither its host in `allowed_hosts` nor \
               `allow_mcp_servers`";
    Err(Error::Failed(why.to_owned()))
}

impl Runtime {
    /// The tools of all servers of a session, and what is wrong with those that have none to tell.
    pub(super) async fn mcp_tools(
        &self,
        session: &Session,
        place: &EnvironmentConfig,
        host: &impl tool::Host,
    ) -> (Vec<Offer>, Vec<Trouble>) {
        let (mut offers, mut troubles): (Vec<Offer>, _) = (Vec::new(), Vec::new());
        let Some(mcp) = &self.mcp else { return (offers, troubles) };
        let servers = wanted(session);
        // All at once: those that do not answer cost the time of one.
        let asking = servers.iter().map(|server| {
            Box::pin(async move {
                let tools = mcp.tools(session, place, server, host).await?;
                let pinned = mcp.pinned(session, server.url, &tools).await?;
                Ok((tools, pinned))
            })
        });
        for (server, told) in servers.iter().zip(join_all(asking).await) {
            let (tools, pinned) = match told {
                Ok(told) => told,
                Err(error) => {
                    troubles.push(Trouble::of(server.name, &error));
                    continue;
                }
            };
            let (mut unfit, mut changed) = (Vec::new(), Vec::new());
            for tool in tools.iter() {
                let Some(policy) = mcp_policy(&session.agent.tools, server.name, &tool.name) else {
                    continue;
                };
                let name = offered_name(server.name, &tool.name);
                let why = tool.unfit().or_else(|| {
                    let is_taken = offers.iter().any(|it| it.name == name);
                    let is_full = offers.len() >= TOOLS_MAX;
                    is_taken.then_some(TAKEN).or(is_full.then_some(TOO_MANY))
                });
                if let Some(why) = why {
                    unfit.push(format!("{} ({why})", quoted(&tool.name)));
                    continue;
                }
                let is_changed = pinned.get(&tool.name).is_some_and(|hash| *hash != tool.hash);
                if is_changed {
                    changed.push(quoted(&tool.name));
                }
                let (server, tool) = (server.name.to_owned(), tool.clone());
                offers.push(Offer { server, tool, name, policy, is_changed });
            }
            troubles.extend(Trouble::of_tools(server.name, LEFT_OUT, &unfit, true));
            troubles.extend(Trouble::of_tools(server.name, CHANGED, &changed, false));
        }
        (offers, troubles)
    }

    /// Calls a tool of a server. Answers what the model is told, and whether that is an error.
    pub(super) async fn mcp_call(
        &self,
        session: &Session,
        place: &EnvironmentConfig,
        remote: &Remote,
        input: &serde_json::Value,
        host: &impl tool::Host,
    ) -> Result<(Vec<Block>, bool), Error> {
        let gone = || Error::Failed("it is not among the agent's servers".to_owned());
        let mcp = self.mcp.as_ref().ok_or_else(gone)?;
        let servers = wanted(session);
        let server = servers.iter().find(|it| it.name == remote.server).ok_or_else(gone)?;
        let media_bytes_max = self.options.tools.media_bytes_max;
        let called = mcp.call(session, place, server, host, (&remote.tool, input, media_bytes_max));
        match called.await {
            // Who is not let in was not heard; another connection may have a newer token.
            Err(Error::Unauthorized(_)) => {
                let again = (remote.tool.as_str(), input, media_bytes_max);
                mcp.call(session, place, server, host, again).await
            }
            called => called,
        }
    }

    /// Somebody allowed a call of a tool as it was described then.
    pub(super) async fn mcp_agree(&self, session: &Session, remote: &Remote) {
        let servers = wanted(session);
        let Some(server) = servers.iter().find(|it| it.name == remote.server) else { return };
        let by = pinned_by(session, server.url);
        let agreed = self.store.repin_tool(&by, remote.tool.clone(), remote.hash.clone());
        if let Err(error) = agreed.await {
            // The next call is asked about again.
            tracing::warn!(error = error.detail(), "an approval of a changed tool was not noted");
        }
    }
}

fn pinned_by(session: &Session, url: &str) -> PinnedBy {
    PinnedBy {
        agent_id: session.agent_id.clone(),
        agent_version: session.agent_version,
        server: server_key(url),
    }
}

impl Mcp {
    async fn pinned(
        &self,
        session: &Session,
        url: &str,
        tools: &[Tool],
    ) -> Result<BTreeMap<String, String>, Error> {
        let seen = tools.iter().map(|tool| (tool.name.clone(), tool.hash.clone())).collect();
        let pinned = self.0.store.pin_tools(&pinned_by(session, url), seen).await;
        pinned.map_err(|error| failed("its tools cannot be compared", &error.detail()))
    }

    async fn tools(
        &self,
        session: &Session,
        place: &EnvironmentConfig,
        server: &Wanted<'_>,
        host: &impl tool::Host,
    ) -> Result<Arc<Vec<Tool>>, Error> {
        let found = self.credential(session, server.url).await?;
        let who = found.as_ref().map(|it| (it.credential.id.clone(), it.credential.version));
        // What a program in the sandbox offers may differ from session to session.
        let of = match server.url.starts_with(PROGRAM) {
            true => format!("{} {}", session.id, server.url),
            false => server_key(server.url),
        };
        let key = (of, who);
        let clock = self.0.store.clock();
        if let Some(list) = self.kept(&key, clock.monotonic()) {
            return Ok(list);
        }
        let slot = self.connected(session, place, server, host).await?;
        let mut guard = slot.lock().await;
        let connection = guard.as_ref().ok_or_else(|| Error::Failed("it is gone".to_owned()))?;
        let tools = connection.tools().await;
        if tools.is_err() {
            *guard = None;
        }
        let list = Arc::new(tools?);
        self.keep(key, clock.monotonic(), list.clone());
        Ok(list)
    }

    /// One call. A connection over which it failed is not used again.
    async fn call(
        &self,
        session: &Session,
        place: &EnvironmentConfig,
        server: &Wanted<'_>,
        host: &impl tool::Host,
        (tool, input, media_bytes_max): (&str, &serde_json::Value, usize),
    ) -> Result<(Vec<Block>, bool), Error> {
        let slot = self.connected(session, place, server, host).await?;
        let mut guard = slot.lock().await;
        let connection = guard.as_ref().ok_or_else(|| Error::Failed("it is gone".to_owned()))?;
        let called = connection.call(tool, input, media_bytes_max).await;
        if called.is_err() {
            *guard = None;
        }
        called
    }

    /// A connection to a server, made anew where there is none that works.
    async fn connected(
        &self,
        session: &Session,
        place: &EnvironmentConfig,
        server: &Wanted<'_>,
        host: &impl tool::Host,
    ) -> Result<Slot, Error> {
        let slot = self.slot(&session.id, server.name);
        let mut guard = slot.lock().await;
        if guard.as_ref().is_some_and(|connection| !connection.is_closed()) {
            drop(guard);
            return Ok(slot);
        }
        *guard = None;
        *guard = Some(match server.url.strip_prefix(PROGRAM) {
            Some(program) => self.start(program, host).await?,
            None => self.reach(session, place, server.url).await?,
        });
        drop(guard);
        Ok(slot)
    }

    async fn reach(
        &self,
        session: &Session,
        place: &EnvironmentConfig,
        url: &str,
    ) -> Result<Connection, Error> {
        may_ask(place, url)?;
        let options = &self.0.options;
        let way = self.0.servers.client(url, &options.allowed_private_hosts);
        let (client, _) = way.map_err(Error::Failed)?;
        let found = self.credential(session, url).await?;
        let clock = self.0.store.clock();
        let open = async |token: Option<SecretString>| {
            let way = Way::Http { client: client.clone(), url: url.to_owned(), token };
            Connection::open(way, options, clock).await
        };
        let Some(found) = found else { return open(None).await };
        let opened = open(Some(self.token(&found, false).await?)).await;
        match opened {
            Err(Error::Unauthorized(_)) if renew::can(&found) => {
                open(Some(self.token(&found, true).await?)).await
            }
            opened => opened,
        }
    }

    /// A server that the operator named, in the session's sandbox.
    async fn start(&self, name: &str, host: &impl tool::Host) -> Result<Connection, Error> {
        let Some(command) = self.0.programs.get(name) else {
            let why = format!("`mcp.servers` of the configuration has no `{name}`");
            return Err(Error::Failed(why));
        };
        let shell = host.shell().await.map_err(|error| Error::Failed(error.to_string()))?;
        let spec = Spec { program: command.clone(), ..shell.spec.clone() };
        let running = shell.sandbox.spawn(&spec).await;
        let running = running.map_err(|error| Error::Failed(error.to_string()))?;
        let (options, clock) = (&self.0.options, self.0.store.clock());
        Connection::open(Way::Program(Box::new(running)), options, clock).await
    }
}
