//! The operations that random lists are made of: for the differential test.

use bellpull::domain::{ManagedBy, budget::Budgets, effect::EffectStatus, turn::TurnEnd};
use proptest::prelude::*;

use super::acts::{Act, Plan, Word, act, budget, plan, word};

/// What is done, with numbers that pick something out of what there is by then.
#[derive(Clone, Debug)]
pub enum Op {
    Accept(Request),
    Create {
        session: usize,
        agent: usize,
        n_messages: usize,
    },
    Send {
        session: usize,
        n_messages: usize,
        waiting_max: i64,
    },
    Archive {
        session: usize,
    },
    Claim {
        lasting: bool,
    },
    /// Claims what is due and answers it.
    Work {
        end: TurnEnd,
    },
    Begin {
        lease: usize,
    },
    Append {
        lease: usize,
        n_events: usize,
        tokens: i64,
    },
    Finish {
        lease: usize,
        end: TurnEnd,
    },
    Renew {
        lease: usize,
        lasting: bool,
    },
    Release {
        lease: usize,
    },
    Reschedule {
        lease: usize,
        at_once: bool,
    },
    VoidLeases {
        of_owner: usize,
    },
    Pause {
        agent: usize,
        paused: bool,
    },
    Patch {
        agent: usize,
        system: usize,
        version: Option<i64>,
    },
    PauseSource {
        source: usize,
        paused: bool,
    },
    RetireSource {
        source: usize,
        by: ManagedBy,
    },
    PutSource {
        source: usize,
        by: ManagedBy,
    },
    PutSecret {
        name: usize,
        overlap_seconds: u64,
    },
    DeleteSecret {
        name: usize,
    },
    Erase {
        delivery: usize,
    },
    ReadEvents {
        session: usize,
        newest_first: bool,
        limit: usize,
        only_messages: bool,
    },
    Advance {
        ms: u64,
    },
    /// In the turn of a lease.
    Act {
        lease: usize,
        act: Act,
    },
    /// About a call, or one that is not there.
    Say {
        call: usize,
        session: Option<usize>,
        word: Word,
    },
    Settle {
        call: usize,
        status: EffectStatus,
    },
    Allow {
        owner: usize,
        budgets: Budgets,
    },
    Deploy {
        which: usize,
        plan: Plan,
    },
    ArchiveAgent {
        agent: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Request {
    pub source: usize,
    pub identity: usize,
    pub identity_before: Option<usize>,
    pub agent: usize,
    pub target: Goal,
    pub rerun_failed: bool,
    pub waiting_max: i64,
    pub in_pieces: bool,
}

#[derive(Clone, Debug)]
pub enum Goal {
    New,
    Session(usize),
    Key(usize),
    Held,
    Filtered,
}

fn request() -> impl Strategy<Value = Request> {
    let target = prop_oneof![
        2 => Just(Goal::New),
        3 => (0..8_usize).prop_map(Goal::Session),
        5 => (0..3_usize).prop_map(Goal::Key),
        1 => Just(Goal::Held),
        1 => Just(Goal::Filtered),
    ];
    let limit = prop_oneof![2 => Just(100_i64), 1 => 1..3_i64];
    let before = prop::option::weighted(0.2, 0..5_usize);
    let (often, seldom) = (prop::bool::weighted(0.4), prop::bool::weighted(0.1));
    let agent = prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    (0..2_usize, 0..5_usize, before, agent, target, often, limit, seldom).prop_map(
        |(source, identity, before, agent, target, rerun_failed, waiting_max, in_pieces)| Request {
            source,
            identity,
            identity_before: before,
            agent,
            target,
            rerun_failed,
            waiting_max,
            in_pieces,
        },
    )
}

/// Any operation, the more telling ones more often.
pub fn op() -> impl Strategy<Value = Op> {
    // Mostly a lease that is still good.
    let lease = || prop_oneof![4 => 0..3_usize, 1 => 0..40_usize];
    let session = || prop_oneof![3 => 0..3_usize, 1 => 0..12_usize];
    let managed_by = || prop_oneof![Just(ManagedBy::Api), Just(ManagedBy::File)];
    let end = || prop::sample::select(TurnEnd::ALL.to_vec());
    prop_oneof![
        16 => request().prop_map(Op::Accept),
        3 => (session(), 0..2_usize, 0..3_usize)
            .prop_map(|(session, agent, n_messages)| Op::Create { session, agent, n_messages }),
        4 => (session(), 1..3_usize, 1..5_i64).prop_map(|(session, n_messages, waiting_max)| {
            Op::Send { session, n_messages, waiting_max }
        }),
        2 => session().prop_map(|session| Op::Archive { session }),
        8 => any::<bool>().prop_map(|lasting| Op::Claim { lasting }),
        5 => end().prop_map(|end| Op::Work { end }),
        8 => lease().prop_map(|lease| Op::Begin { lease }),
        4 => (lease(), 0..3_usize, 0..3_i64)
            .prop_map(|(lease, n_events, tokens)| Op::Append { lease, n_events, tokens }),
        8 => (lease(), end()).prop_map(|(lease, end)| Op::Finish { lease, end }),
        2 => (lease(), any::<bool>()).prop_map(|(lease, lasting)| Op::Renew { lease, lasting }),
        3 => lease().prop_map(|lease| Op::Release { lease }),
        3 => (lease(), prop::bool::weighted(0.7))
            .prop_map(|(lease, at_once)| Op::Reschedule { lease, at_once }),
        1 => (0..3_usize).prop_map(|of_owner| Op::VoidLeases { of_owner }),
        2 => (0..2_usize, prop::bool::weighted(0.3))
            .prop_map(|(agent, paused)| Op::Pause { agent, paused }),
        1 => (0..2_usize, 0..3_usize, prop::option::of(1..3_i64))
            .prop_map(|(agent, system, version)| Op::Patch { agent, system, version }),
        1 => (0..2_usize, any::<bool>())
            .prop_map(|(source, paused)| Op::PauseSource { source, paused }),
        1 => (0..2_usize, managed_by()).prop_map(|(source, by)| Op::RetireSource { source, by }),
        1 => (0..2_usize, managed_by()).prop_map(|(source, by)| Op::PutSource { source, by }),
        1 => (0..2_usize, 0..3_u64)
            .prop_map(|(name, n)| Op::PutSecret { name, overlap_seconds: n * 30 }),
        1 => (0..2_usize).prop_map(|name| Op::DeleteSecret { name }),
        2 => (0..8_usize).prop_map(|delivery| Op::Erase { delivery }),
        3 => (session(), any::<bool>(), 1..4_usize, any::<bool>()).prop_map(
            |(session, newest_first, limit, only_messages)| Op::ReadEvents {
                session, newest_first, limit, only_messages,
            }
        ),
        3 => (1..60_000_u64).prop_map(|ms| Op::Advance { ms }),
        20 => (lease(), act()).prop_map(|(lease, act)| Op::Act { lease, act }),
        8 => (0..4_usize, prop::option::weighted(0.1, session()), word())
            .prop_map(|(call, session, word)| Op::Say { call, session, word }),
        2 => (0..6_usize, prop::sample::select(vec![EffectStatus::Done, EffectStatus::Failed]))
            .prop_map(|(call, status)| Op::Settle { call, status }),
        2 => budget().prop_map(|(owner, budgets)| Op::Allow { owner, budgets }),
        8 => (0..3_usize, plan()).prop_map(|(which, plan)| Op::Deploy { which, plan }),
        1 => (1..12_usize).prop_map(|agent| Op::ArchiveAgent { agent }),
    ]
}
