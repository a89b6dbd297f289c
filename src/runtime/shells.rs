//! The shells of this server's sessions: one each, as long as it is used.
//!
//! Invariants: a session has one shell at most, and one command in it at a time; there are never more
//! shells than the bound, and the one that was used least recently makes way. Whoever waits for a shell
//! holds up no other session. What their ways out decided is kept until a result of the session has
//! told it, whatever becomes of the shell. Left out: what a shell does.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Lock, OwnedMutexGuard},
    time::Instant,
};

use crate::{
    clock::{Clock, Timestamp},
    domain::{
        access::{self, Network},
        environment::EnvironmentConfig,
        event::{Egress, EgressDecision},
    },
    id::{SessionId, random_bits},
    tool::{
        self, Workspace,
        egress::{self, Decision, Policy, Proxy},
        sandbox::{Sandbox, Spec},
        shell::{self, Files, Handle, Slot},
    },
};

/// How many shells there are, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Shells of this server at once.
    pub shells_max: usize,
    /// Seconds after which a shell is ended that nobody uses.
    pub idle_seconds: u64,
    /// Of each command.
    pub command: shell::Options,
    /// Of the way out of each.
    pub egress: egress::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shells_max: 64,
            idle_seconds: 900,
            command: shell::Options::default(),
            egress: egress::Options::default(),
        }
    }
}

/// Clones share the shells.
#[derive(Clone, Debug)]
pub struct Shells {
    sandbox: Sandbox,
    options: Options,
    clock: Clock,
    places: Arc<Mutex<HashMap<SessionId, Place>>>,
    decided: Arc<Mutex<Decided>>,
}

#[derive(Debug)]
struct Place {
    slot: Arc<Lock<Slot>>,
    used: Instant,
}

/// What the ways out of sessions decided and no result has told yet, each once, and when that was
/// last added to.
#[derive(Debug, Default)]
struct Decided(HashMap<SessionId, (Instant, Vec<Egress>)>);

/// Hosts of one kind of decision that are told; more of them are in the server's log.
const TOLD_MAX: usize = 32;

/// Sessions that may have something to tell; of more the server's log alone knows.
const UNTOLD_MAX: usize = 4096;

impl Decided {
    fn note(&mut self, session: &SessionId, decision: Egress, now: Instant) {
        if self.0.len() >= UNTOLD_MAX && !self.0.contains_key(session) {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        let (at, decisions) = self.0.entry(session.clone()).or_insert((now, Vec::new()));
        *at = now;
        let n_alike = decisions.iter().filter(|it| it.decision == decision.decision).count();
        if n_alike < TOLD_MAX && !decisions.contains(&decision) {
            decisions.push(decision);
        }
    }

    fn told(&mut self, session: &SessionId, told: &[Egress]) {
        if let Some((_, decisions)) = self.0.get_mut(session) {
            decisions.retain(|it| !told.contains(it));
            if decisions.is_empty() {
                self.0.remove(session);
            }
        }
    }
}

/// Where a session's long outputs are, in its own files; and the mark that it has had a shell.
const OUTPUTS: &str = "outputs";
const MARK: &str = "shell";

impl Shells {
    pub fn new(sandbox: Sandbox, options: Options, clock: Clock) -> Shells {
        Shells { sandbox, options, clock, places: Arc::default(), decided: Arc::default() }
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The shell of a session, once nobody else uses it.
    pub(super) async fn of(
        &self,
        session: &SessionId,
        workspace: &Workspace,
        network: Option<Policy>,
    ) -> Result<Handle, tool::Error> {
        let mut slot = self.slot(session)?.lock_owned().await;
        self.adopt(workspace).await?;
        if slot.proxy.as_ref().map(Proxy::policy) != network.as_ref() {
            slot.close();
            slot.proxy = None;
            if let Some(policy) = network {
                slot.proxy = Some(self.way_out(session, policy)?);
            }
        }
        let socket = slot.proxy.as_ref().map(|proxy| proxy.socket().to_owned());
        let mut mounts = workspace.mounts().iter();
        let root = mounts.next().map(|root| (root.path.clone(), root.writable));
        let (path, writable) = root.unwrap_or_else(|| (workspace.path().to_owned(), true));
        let spec = Spec {
            workspace: path,
            writable,
            shown: mounts.cloned().collect(),
            network: socket,
            ..Spec::default()
        };
        let own = workspace.files();
        let files = Files {
            outputs: own.join(OUTPUTS),
            shown_at: Path::new(tool::workspace::FILES).join(OUTPUTS),
            mark: own.join(MARK),
        };
        Ok(Handle {
            slot,
            sandbox: self.sandbox.clone(),
            spec,
            files,
            options: self.options.command.clone(),
            clock: self.clock.clone(),
        })
    }

    /// What the session's way out decided and nobody was told of.
    pub(super) fn decided(&self, session: &SessionId) -> Vec<Egress> {
        let decided = self.decided.lock().expect("nobody panics with this lock");
        decided.0.get(session).map(|(_, decisions)| decisions.clone()).unwrap_or_default()
    }

    /// These stand in the session's log.
    pub(super) fn told(&self, session: &SessionId, told: &[Egress]) {
        self.decided.lock().expect("nobody panics with this lock").told(session, told);
    }

    fn way_out(&self, session: &SessionId, policy: Policy) -> Result<Proxy, tool::Error> {
        let name = format!("{:016x}", random_bits(Timestamp(0)) as u64);
        let session = session.clone();
        let (decided, clock) = (self.decided.clone(), self.clock.clone());
        let told = move |decision: Decision| {
            let Decision { host, port, refused } = decision;
            let decision = match &refused {
                None => EgressDecision::Allowed,
                Some(_) => EgressDecision::Refused,
            };
            let egress = Egress { host: host.clone(), port, decision, reason: refused.clone() };
            let now = clock.monotonic();
            decided.lock().expect("nobody panics with this lock").note(&session, egress, now);
            match refused {
                None => tracing::info!(session_id = %session, host, port, "a program went out"),
                Some(why) => {
                    tracing::warn!(session_id = %session, host, port, why, "a way out was refused");
                }
            }
        };
        let outside = egress::Outside::new(Arc::new(told), self.clock.clone());
        let options = self.options.egress.clone();
        let started = Proxy::start(&self.sandbox.socket(&name), policy, options, outside);
        started.map_err(|error| {
            tool::Error::Fatal(anyhow::Error::new(error).context("start the proxy of a sandbox"))
        })
    }

    /// Where the programs of a session may go. `allowed` are the hosts that its source names, where
    /// something from outside is in it.
    pub(super) fn policy(
        &self,
        config: &EnvironmentConfig,
        allowed: Option<&[String]>,
    ) -> Option<Policy> {
        let mut network = config.network();
        if let Network::Limited(hosts) = &mut network
            && config.allows_package_managers()
        {
            hosts.extend(self.options.egress.package_hosts.iter().cloned());
        }
        match access::network(network, allowed) {
            Network::Limited(hosts) if !hosts.is_empty() => Some(Policy::Limited(hosts)),
            Network::None | Network::Limited(_) => None,
            Network::Unrestricted => Some(Policy::Unrestricted),
        }
    }

    /// Ends the shells that nobody has used for a while; answers how many.
    pub fn close_idle(&self) -> usize {
        let idle = Duration::from_secs(self.options.idle_seconds);
        let now = self.clock.monotonic();
        let mut places = self.places.lock().expect("nobody panics with this lock");
        let n_before = places.len();
        places.retain(|_, place| {
            now.saturating_duration_since(place.used) < idle || unused(place).is_none()
        });
        n_before - places.len()
    }

    fn slot(&self, session: &SessionId) -> Result<Arc<Lock<Slot>>, tool::Error> {
        let now = self.clock.monotonic();
        let mut places = self.places.lock().expect("nobody panics with this lock");
        if let Some(place) = places.get_mut(session) {
            place.used = now;
            return Ok(place.slot.clone());
        }
        if places.len() >= self.options.shells_max {
            let free = places.iter().filter(|(_, place)| unused(place).is_some());
            let oldest = free.min_by_key(|(_, place)| place.used).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else {
                let why = "all shells of this server are in use; try again in a while";
                return Err(tool::Error::Model(why.to_owned()));
            };
            places.remove(&oldest);
        }
        let slot: Arc<Lock<Slot>> = Arc::default();
        places.insert(session.clone(), Place { slot: slot.clone(), used: now });
        Ok(slot)
    }

    /// What the server made as root is given to whoever programs run as: the workspace that it made
    /// for this session, and nothing that was there before.
    async fn adopt(&self, workspace: &Workspace) -> Result<(), tool::Error> {
        let Some(owner) = self.sandbox.owner() else { return Ok(()) };
        let (root, own) = (workspace.path().to_owned(), workspace.files().to_owned());
        if !root.starts_with(&own) {
            return Ok(());
        }
        let giving = tokio::task::spawn_blocking(move || give(&root, owner));
        let given = giving.await.map_err(std::io::Error::other).and_then(|given| given);
        given.map_err(|error| {
            tool::Error::Fatal(anyhow::Error::new(error).context("give away the workspace"))
        })
    }
}

/// The shell of a place that nobody holds or waits for.
fn unused(place: &Place) -> Option<OwnedMutexGuard<Slot>> {
    // The map holds one, and whoever uses it or waits holds another.
    (Arc::strong_count(&place.slot) == 1).then(|| place.slot.clone().try_lock_owned().ok())?
}

/// A directory with everything in it, unless it is given away already. No link is followed.
fn give(path: &Path, (user, group): (u32, u32)) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    if std::fs::symlink_metadata(path)?.uid() != 0 {
        return Ok(());
    }
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                lchown(entry.path(), Some(user), Some(group))?;
            }
        }
        if directory != path {
            lchown(&directory, Some(user), Some(group))?;
        }
    }
    // Last: it says that all of it is given away.
    lchown(path, Some(user), Some(group))
}
