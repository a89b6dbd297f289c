//! Many senders and many workers at once, and then the books are balanced: every delivery once, in
//! its session's order, with an outcome, and nothing left over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bellpull::{
    domain::{
        delivery::{Delivery, Outcome, Status},
        event::{Event, EventBody, Usage},
        session,
        turn::TurnEnd,
    },
    id::{DeliveryId, SessionId},
    store::{DeliveryFilter, Error, Lease, SessionFilter, Verdict},
};
use tokio::task::JoinSet;

use super::{Bench, Draft, bench::HOUR};

on_both!(senders_and_workers_at_once);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_and_workers_on_two_nodes_at_once_on_postgres() {
    let bench = Bench::postgres().await;
    let other = bench.another_node().await;
    hammer(vec![Arc::new(bench), Arc::new(other)]).await;
}

async fn senders_and_workers_at_once(bench: Bench) {
    hammer(vec![Arc::new(bench)]).await;
}

const SENDERS: usize = 8;
const WORKERS: usize = 4;

/// Requests of each sender: a few seconds of them. Every identity comes about three times.
fn n_requests(bench: &Bench) -> usize {
    let n = if bench.store.is_sqlite() { 1_200 } else { 200 };
    if crate::support::full() { 10 * n } else { n }
}

async fn hammer(nodes: Vec<Arc<Bench>>) {
    let ledger = Arc::new(Ledger::default());
    let sending = Arc::new(AtomicBool::new(true));
    let (mut senders, mut workers) = (JoinSet::new(), JoinSet::new());
    let target: SessionId = nodes[0].session().await;
    let n_requests = n_requests(&nodes[0]);
    for n in 0..SENDERS {
        let (bench, ledger, target) =
            (nodes[n % nodes.len()].clone(), ledger.clone(), target.clone());
        senders.spawn(async move {
            let mut random = Random::new();
            for _ in 0..n_requests {
                let n_identities = SENDERS * n_requests / 3;
                let draft = a_request(&bench, &target, random.below(n_identities));
                ledger.accept(&bench, draft).await;
            }
        });
    }
    for n in 0..WORKERS {
        let (bench, sending) = (nodes[n % nodes.len()].clone(), sending.clone());
        workers.spawn(async move {
            let mut random = Random::new();
            let mut worked = true;
            // As long as requests come, and then until nothing is due any more.
            while sending.load(Ordering::SeqCst) || worked {
                worked = work(&bench, &mut random, &format!("node:{n}")).await;
            }
        });
    }
    senders.join_all().await;
    sending.store(false, Ordering::SeqCst);
    workers.join_all().await;
    drain(&nodes[0]).await;
    ledger.balance(&nodes[0]).await;
}

/// What comes from the sender under this number: always the same, as senders do.
pub fn a_request(bench: &Bench, target: &SessionId, number: usize) -> Draft {
    let draft = bench.draft(&format!("{number}"));
    match number % 5 {
        0 => draft,
        1 => draft.for_session(target),
        _ => draft.for_key(&format!("key {}", number % 7)),
    }
}

/// Claims and works a little, sometimes well and sometimes badly. Tells whether there was anything.
async fn work(bench: &Bench, random: &mut Random, owner: &str) -> bool {
    let length = if random.below(4) == 0 { Duration::ZERO } else { HOUR };
    let limit = 1 + random.below(4);
    let claimed = bench.store.claim(owner.to_owned(), length, limit, None).await.unwrap().0;
    for claimed in &claimed {
        match turn(bench, random, &claimed.lease).await {
            Ok(()) | Err(Error::Fenced) => {}
            Err(error) => panic!("{}", error.detail()),
        }
    }
    if claimed.is_empty() {
        tokio::task::yield_now().await;
    }
    !claimed.is_empty()
}

async fn turn(bench: &Bench, random: &mut Random, lease: &Lease) -> Result<(), Error> {
    let store = &bench.store;
    if random.below(10) == 0 {
        return store.release(lease).await;
    }
    store.begin_turn(lease, bench.beginning()).await?;
    for n in 0..random.below(3) {
        let events = (0..=n).map(|n| bench.says(&format!("{n}"))).collect();
        store.append(lease, events, Usage { output_tokens: 1, ..Usage::default() }).await?;
    }
    match random.below(10) {
        0 => store.release(lease).await,
        // Dies, and somebody else goes on.
        1 => store.renew(lease, Duration::ZERO).await,
        2 => {
            store.renew(lease, HOUR).await?;
            store.finish(lease, TurnEnd::Failed, vec![bench.idle(TurnEnd::Failed)], HOUR).await
        }
        _ => {
            let end = TurnEnd::EndTurn;
            store.finish(lease, end, vec![bench.idle(end)], Duration::ZERO).await
        }
    }
}

/// Works off what is due until nothing is.
pub async fn drain(bench: &Bench) {
    loop {
        let claimed = bench.claim_as("node:drain", HOUR).await;
        if claimed.is_empty() {
            return;
        }
        for claimed in claimed {
            bench.begin(&claimed.lease).await;
            bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
        }
    }
}

/// What senders were told, and when.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Moves with every request and every answer.
    time: AtomicU64,
    answers: Mutex<Vec<Answered>>,
}

#[derive(Clone, Debug)]
struct Answered {
    identity: String,
    delivery_id: DeliveryId,
    first: bool,
    asked: u64,
    answered: u64,
}

impl Ledger {
    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    async fn accept(&self, bench: &Bench, draft: Draft) {
        if let Err(error) = self.try_accept(bench, draft).await {
            panic!("{}", error.detail());
        }
    }

    /// Notes the answer, if there is one.
    pub async fn try_accept(&self, bench: &Bench, draft: Draft) -> Result<(), Error> {
        let (identity, asked) = (draft.0.identity.key.clone(), self.tick());
        let accepted = bench.store.accept(draft.0).await?.expect("there is room");
        let answered = Answered {
            identity,
            delivery_id: accepted.delivery_id,
            first: accepted.verdict == Verdict::Accepted,
            asked,
            answered: self.tick(),
        };
        self.answers.lock().unwrap().push(answered);
        Ok(())
    }

    /// Compares what senders were told with what is there.
    pub async fn balance(&self, bench: &Bench) {
        let answers = self.answers.lock().unwrap().clone();
        let deliveries = every_delivery(bench).await;
        let mut times = BTreeMap::new();
        for answer in &answers {
            let delivery = deliveries.get(&answer.delivery_id);
            let delivery = delivery.unwrap_or_else(|| panic!("{answer:?} was promised"));
            assert_eq!(delivery.identity.key, answer.identity);
            if answer.first {
                let told = times.insert(&answer.delivery_id, (answer.asked, answer.answered));
                assert_eq!(told, None, "{answer:?} was accepted twice");
            }
        }
        let identities: BTreeSet<_> = deliveries.values().map(|it| &it.identity.key).collect();
        assert_eq!(identities.len(), deliveries.len(), "one delivery for each identity");
        for delivery in deliveries.values() {
            assert_eq!(delivery.status, Status::Accepted);
            let settled = matches!(delivery.outcome, Some(Outcome::Succeeded | Outcome::Failed));
            assert!(settled, "{delivery:?}");
        }
        let mut taken = BTreeSet::new();
        for session in every_session(bench).await {
            let log = bench.log(&session.id).await;
            assert_eq!((session.n_waiting, session.turn_id.as_ref()), (0, None), "{session:?}");
            assert_eq!(session.status, session::Status::Idle);
            assert_eq!(session.next_seq, log.len() as i64 + 1);
            let order = origins(&log);
            for id in &order {
                assert_eq!(deliveries[id].session_id.as_ref(), Some(&session.id));
                assert!(taken.insert(id.clone()), "{id} is in the logs twice");
            }
            in_order(&order, &times);
        }
        assert_eq!(taken, deliveries.into_keys().collect(), "every message is in a log");
        assert_eq!(bench.place.number("select count(*) from waiting").await, 0);
        assert_eq!(bench.store.next_due().await.unwrap(), None);
    }
}

/// Whoever was answered before another one asked is before it in the log.
fn in_order(order: &[DeliveryId], times: &BTreeMap<&DeliveryId, (u64, u64)>) {
    let mut latest_asked = 0;
    for (asked, answered) in order.iter().filter_map(|id| times.get(id)) {
        assert!(*answered > latest_asked, "answered at {answered}, after one asked {latest_asked}");
        latest_asked = latest_asked.max(*asked);
    }
}

fn origins(log: &[Event]) -> Vec<DeliveryId> {
    let origin = |event: &Event| match &event.body {
        EventBody::UserMessage { origin: Some(origin), .. } => Some(origin.delivery_id.clone()),
        _ => None,
    };
    log.iter().filter_map(origin).collect()
}

async fn every_delivery(bench: &Bench) -> BTreeMap<DeliveryId, Delivery> {
    let (mut all, mut cursor) = (BTreeMap::new(), None);
    loop {
        let filter = DeliveryFilter { cursor, limit: 1000, ..DeliveryFilter::default() };
        let page = bench.store.deliveries(filter).await.unwrap();
        all.extend(page.data.into_iter().map(|delivery| (delivery.id.clone(), delivery)));
        let Some(next) = page.next else { return all };
        cursor = Some(next.parse().unwrap());
    }
}

async fn every_session(bench: &Bench) -> Vec<session::Session> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let filter = SessionFilter { cursor, limit: 1000, ..SessionFilter::default() };
        let page = bench.store.sessions(filter).await.unwrap();
        all.extend(page.data);
        let Some(next) = page.next else { return all };
        cursor = Some(next.parse().unwrap());
    }
}

/// Small random numbers. What fails here fails by timing, so there is no seed to keep.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
        Random(high ^ low | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % n
    }
}
