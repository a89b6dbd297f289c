//! The outbox: sends what the store has to be sent.
//!
//! A message is claimed, sent once, and what became of that is written down; what was claimed by a
//! process that died is claimed again when its time is up, and carries the same id. Invariants: at
//! least once, never given up in silence; one receiver that is slow or down holds up no other; secrets
//! are opened for one attempt and said nowhere. Signals only make it look sooner. Left out: what is
//! worth telling, which is decided where it happens.

mod message;
mod pace;
mod sign;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    clock::Clock,
    domain::callback::{Format, is_near},
    fetch::Post,
    signal::Signals,
    store::{self, Attempted, ClaimedMessage, Store},
    vault::{Place, Vault},
};

/// How messages are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Hosts that are no public ones and may be sent to all the same, also by plain HTTP.
    pub allowed_private_hosts: Vec<String>,
    /// Messages that this process sends at once.
    pub sends_max: usize,
    /// Of these, to one receiver.
    pub sends_per_receiver_max: usize,
    /// Seconds that a receiver has for its answer.
    pub attempt_seconds_max: u64,
    /// Attempts after which a message is dead.
    pub attempts_max: u32,
    /// Milliseconds after the first failed attempt; each further pause is twice as long.
    pub retry_first_ms: u64,
    /// Seconds of the longest pause.
    pub retry_seconds_max: u64,
    /// Seconds that a receiver may ask us to wait.
    pub retry_after_seconds_max: u64,
    /// Milliseconds between two looks for due messages when no signal comes.
    pub poll_ms: u64,
    /// Seconds that a stopping process waits for answers.
    pub drain_seconds: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            allowed_private_hosts: Vec::new(),
            sends_max: 32,
            sends_per_receiver_max: 4,
            attempt_seconds_max: 15,
            attempts_max: 20,
            retry_first_ms: 5000,
            retry_seconds_max: 3600,
            retry_after_seconds_max: 86_400,
            poll_ms: 1000,
            drain_seconds: 10,
        }
    }
}

/// What a claim lasts beyond the answer's time, so that its report comes before its end.
const LEASE_EXTRA: Duration = Duration::from_secs(15);

/// Pause after the store failed.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

/// Two looks are never closer, so that what another node holds is not asked for without end.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// What may change while the process runs.
#[derive(Debug)]
struct Settings {
    options: Options,
    /// Where people find sessions.
    public_url: Option<String>,
}

/// Clones are the same sender.
#[derive(Clone, Debug)]
pub struct Outbox {
    store: Store,
    vault: Arc<Vault>,
    signals: Signals,
    post: Post,
    settings: Arc<ArcSwap<Settings>>,
    /// Written into claims: the node, and which of its lives.
    claimer: String,
    clock: Clock,
}

impl Outbox {
    /// `node` names this data directory for ever, `boot` this process.
    pub fn new(
        store: Store,
        vault: Arc<Vault>,
        signals: Signals,
        post: Post,
        (node, boot): (&str, &str),
    ) -> Outbox {
        let clock = store.clock().clone();
        let settings = Settings { options: Options::default(), public_url: None };
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        Outbox { store, vault, signals, post, settings, claimer: format!("{node}:{boot}"), clock }
    }

    /// Takes changed options over; what is under way keeps the old ones.
    pub fn set_options(&self, options: Options, public_url: Option<String>) {
        self.settings.store(Arc::new(Settings { options, public_url }));
    }

    /// Sends until told to stop, then waits a while for the answers that are still to come. What has
    /// none by then is due again.
    pub async fn run(self, stop: CancellationToken) {
        self.void_earlier_claims().await;
        let under_way = Arc::new(UnderWay::default());
        let (sends, give_up) = (TaskTracker::new(), CancellationToken::new());
        while !stop.is_cancelled() {
            let wait = self.look(&under_way, &sends, &give_up).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.signals.wait_outgoing() => {}
                () = under_way.less.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
        sends.close();
        let drain = Duration::from_secs(self.settings.load().options.drain_seconds);
        if self.clock.timeout(drain, sends.wait()).await.is_err() {
            tracing::info!(messages = sends.len(), "giving up messages without an answer for now");
            give_up.cancel();
            sends.wait().await;
        }
    }

    /// The lock on the data directory proves that earlier lives of this node are dead.
    async fn void_earlier_claims(&self) {
        let node = self.claimer.split(':').next().unwrap_or_default().to_owned();
        match self.store.void_outgoing_claims(node, self.claimer.clone()).await {
            Ok(0) => {}
            Ok(n) => tracing::info!(messages = n, "sending again what an earlier run was sending"),
            // They run out by themselves.
            Err(error) => tracing::warn!(error = %error.detail(), "earlier claims were not voided"),
        }
    }

    /// Claims what is due and sends it. Answers how long nothing more will be.
    async fn look(
        &self,
        under_way: &Arc<UnderWay>,
        sends: &TaskTracker,
        give_up: &CancellationToken,
    ) -> Duration {
        let settings = self.settings.load_full();
        let options = &settings.options;
        let poll = Duration::from_millis(options.poll_ms);
        loop {
            let busy = under_way.lock().clone();
            let room = options.sends_max.saturating_sub(busy.values().sum());
            let is_full = |n: usize| n >= options.sends_per_receiver_max;
            let full = busy.iter().filter(|(_, n)| is_full(**n)).map(|(owner, _)| owner.clone());
            let full: Vec<String> = full.collect();
            if room == 0 {
                return poll;
            }
            match self.store.next_outgoing(full).await {
                Ok(Some(next)) if next.is_zero() => {}
                Ok(next) => return next.map_or(poll, |next| next.clamp(PAUSE_MIN, poll)),
                Err(error) => return self.failed(&error),
            }
            let lease = Duration::from_secs(options.attempt_seconds_max) + LEASE_EXTRA;
            let (claimer, per_owner) = (self.claimer.clone(), options.sends_per_receiver_max);
            let claiming = self.store.claim_outgoing(claimer, lease, room, per_owner, busy);
            let claimed = match claiming.await {
                Ok(claimed) if claimed.is_empty() => return PAUSE_MIN,
                Ok(claimed) => claimed,
                Err(error) => return self.failed(&error),
            };
            for message in claimed {
                let place = under_way.enter(&message.owner);
                let (outbox, settings) = (self.clone(), settings.clone());
                let give_up = give_up.clone();
                let span = tracing::error_span!(
                    "outgoing",
                    message_id = %message.id,
                    session_id = message.session_id.as_ref().map(tracing::field::display),
                    owner = message.owner,
                    kind = message.kind,
                );
                let sending = async move {
                    outbox.send(message, &settings, give_up).await;
                    drop(place);
                };
                sends.spawn(sending.instrument(span));
            }
        }
    }

    fn failed(&self, error: &store::Error) -> Duration {
        tracing::warn!(error = %error.detail(), "messages could not be looked for");
        FAILED_PAUSE
    }

    /// One attempt, and what became of it.
    async fn send(&self, message: ClaimedMessage, settings: &Settings, give_up: CancellationToken) {
        let began = self.clock.monotonic();
        let attempted = tokio::select! {
            biased;
            () = give_up.cancelled() => Attempted::Dropped,
            attempted = self.attempt(&message, settings) => attempted,
        };
        let took_ms = (self.clock.monotonic() - began).as_millis();
        let (attempt, deliveries) = (message.attempt, named_deliveries(&message.body));
        let deliveries = deliveries.as_deref().map(tracing::field::display);
        let word = match &attempted {
            Attempted::Sent { code } => {
                tracing::info!(
                    code,
                    attempt,
                    took_ms,
                    delivery_id = deliveries,
                    "a message was sent"
                );
                "sent"
            }
            Attempted::Failed { code, why, pause, .. } => {
                let pause_ms = pause.as_millis();
                tracing::warn!(code, why, attempt, took_ms, pause_ms, "a message was not sent");
                "failed"
            }
            Attempted::Dead { code, why } => {
                tracing::error!(code, why, attempt, delivery_id = deliveries, "a message is dead");
                "dead"
            }
            Attempted::Gone { code } => {
                tracing::error!(code, attempt, "the receiver is gone: its callback is off");
                "dead"
            }
            Attempted::Dropped => "dropped",
        };
        self.store.metrics().message_sent(word, self.clock.monotonic() - began);
        match self.store.attempted(&message, attempted).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!("somebody else has this message by now"),
            // The claim runs out, and the message is sent again.
            Err(error) => {
                tracing::warn!(error = %error.detail(), "what became of a message is not noted");
            }
        }
        if let Some(session) = &message.session_id {
            self.signals.changed(session);
        }
        // The next one of its session may be due.
        self.signals.outgoing();
    }

    async fn attempt(&self, message: &ClaimedMessage, settings: &Settings) -> Attempted {
        let options = &settings.options;
        let later = |why| pace::failed(None, why, None, &message.id, message.n_tries, options);
        if message.n_tries > i64::from(options.attempts_max) {
            // Attempts of which nobody lived to tell count too.
            let why = format!("given up after {} attempts", options.attempts_max);
            return Attempted::Dead { code: None, why };
        }
        let callback = &message.callback;
        let secrets = match callback.format {
            Format::Slack => Vec::new(),
            Format::Standard => match self.open(&callback.secret_key).await {
                Ok(secrets) => secrets,
                Err(why) => return later(why),
            },
        };
        let url = match self.open(&callback.url_key).await {
            Ok(values) => values.first().and_then(|url| Url::parse(url.expose_secret()).ok()),
            Err(why) => return later(why),
        };
        let Some(url) = url else {
            return later(format!("the secret `{}` is no URL", callback.url_key));
        };
        let at = self.clock.now();
        let (headers, body) =
            match message::write(message, settings.public_url.as_deref(), &secrets, at) {
                Ok(written) => written,
                Err(why) => return later(why),
            };
        let is_near = url.host_str().is_some_and(|it| is_near(it, &options.allowed_private_hosts));
        let patience = Duration::from_secs(options.attempt_seconds_max);
        match self.post.send(url, is_near, headers, body.into(), patience).await {
            Ok(answer) => {
                let (status, now) = (answer.status, self.clock.now());
                pace::answered(status, &answer.headers, &message.id, message.n_tries, now, options)
            }
            Err(failure) => pace::unanswered(failure, &message.id, message.n_tries, options),
        }
    }

    /// The live values of a secret, newest first; at least one.
    async fn open(&self, name: &str) -> Result<Vec<SecretString>, String> {
        let sealed = self.store.secret_versions(name).await;
        let sealed = sealed.map_err(|_| "the store did not answer".to_owned())?;
        if sealed.is_empty() {
            return Err(format!("the secret `{name}` has no value in the vault"));
        }
        let open = |it: &store::SealedSecret| {
            let place = Place { kind: "secret", id: &it.name, version: it.version };
            self.vault.open(place, &it.sealed)
        };
        let opened: Result<Vec<_>, _> = sealed.iter().map(open).collect();
        opened.map_err(|error| format!("the secret `{name}` does not open: {error}"))
    }
}

/// Deliveries that a line of the log names.
const NAMED: usize = 5;

fn named_deliveries(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let ids = body["data"]["delivery_ids"].as_array()?;
    let named: Vec<&str> = ids.iter().take(NAMED).filter_map(serde_json::Value::as_str).collect();
    (!named.is_empty()).then(|| named.join(" "))
}

/// How many messages of each owner are being sent.
#[derive(Debug, Default)]
struct UnderWay {
    owners: Mutex<BTreeMap<String, usize>>,
    /// Rung when one of them is over.
    less: Notify,
}

impl UnderWay {
    fn enter(self: &Arc<UnderWay>, owner: &str) -> Entered {
        *self.lock().entry(owner.to_owned()).or_default() += 1;
        Entered { under_way: self.clone(), owner: owner.to_owned() }
    }

    /// A panic while the lock was held left nothing half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One message under way; gone when dropped, also by a panic.
struct Entered {
    under_way: Arc<UnderWay>,
    owner: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut owners = self.under_way.lock();
        if let Some(n) = owners.get_mut(&self.owner) {
            *n -= 1;
            if *n == 0 {
                owners.remove(&self.owner);
            }
        }
        drop(owners);
        self.under_way.less.notify_one();
    }
}
