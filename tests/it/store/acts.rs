//! Random operations about turns that wait, effects, budgets and deployments: for the differential test.
//!
//! Whatever the store makes an id for itself has another one on each database; [`alike`] puts a star in
//! its place.

use std::time::Duration;

use bellpull::{
    clock::Timestamp,
    domain::{
        ManagedBy,
        budget::{Budget, Budgets, CommonBudgets, Wish},
        conversation::ToolUse,
        cost::{MicroUsd, Spent},
        deployment::{Deployment, Schedule},
        effect::EffectStatus,
        event::{Block, Confirmed, EventBody, NewEvent, StopReason, Usage},
    },
    id::{DeploymentId, EventId, SessionId},
    store::{
        Beside, DeploymentFilter, DeploymentPatch, EffectEnd, EffectFilter, Found, Lease, NewAsk,
        NewEffect, Passed, Reserve, RunFilter, Said, Settlement, Store, Tried, Wanted,
    },
};
use proptest::prelude::*;
use serde_json::json;

use super::{
    bench::{HOUR, change},
    differential::{Answer, answer, event, id},
};

/// What is done in a turn that somebody has the lease of.
#[derive(Clone, Debug)]
pub enum Act {
    Ask {
        wanted: Wanted,
        by_client: bool,
        lasting: bool,
    },
    TakeAnswers {
        told: bool,
    },
    Park {
        says: bool,
    },
    TakeUp,
    Intend,
    End {
        call: usize,
        status: EffectStatus,
    },
    Settle {
        call: usize,
        status: EffectStatus,
    },
    /// Before and after a model is asked.
    Reserve {
        cost: Option<i64>,
        tokens: i64,
    },
    Spend {
        cost: Option<i64>,
        tokens: i64,
    },
}

/// What people say about a call, if it is one of the session.
#[derive(Clone, Debug)]
pub enum Word {
    Allow,
    Deny,
    Result(Wanted),
    ResultAndMore(Wanted),
    Stop,
}

#[derive(Clone, Debug)]
pub enum Plan {
    Create { agent: usize, scheduled: bool },
    Update { scheduled: Option<bool>, agent: Option<usize> },
    Pause,
    Unpause,
    Archive,
    Fire { too_late: bool, stale: bool },
    Run { attempt: i64 },
    Show { limit: usize, bytes_max: usize },
}

/// A call that a turn made.
pub type Call = (SessionId, EventId);

pub fn act() -> impl Strategy<Value = Act> {
    let wanted = prop::sample::select(WANTED.to_vec());
    let status = || prop::sample::select(vec![EffectStatus::Done, EffectStatus::Failed]);
    let cost = || prop::option::weighted(0.8, 0..60_i64);
    prop_oneof![
        5 => (wanted, any::<bool>(), prop::bool::weighted(0.7))
            .prop_map(|(wanted, by_client, lasting)| Act::Ask { wanted, by_client, lasting }),
        4 => any::<bool>().prop_map(|told| Act::TakeAnswers { told }),
        4 => any::<bool>().prop_map(|says| Act::Park { says }),
        1 => Just(Act::TakeUp),
        4 => Just(Act::Intend),
        2 => (0..4_usize, prop::sample::select(EffectStatus::ALL.to_vec()))
            .prop_filter("an end", |(_, status)| *status != EffectStatus::Intended)
            .prop_map(|(call, status)| Act::End { call, status }),
        2 => (0..6_usize, status()).prop_map(|(call, status)| Act::Settle { call, status }),
        4 => (cost(), 0..60_i64).prop_map(|(cost, tokens)| Act::Reserve { cost, tokens }),
        3 => (cost(), 0..60_i64).prop_map(|(cost, tokens)| Act::Spend { cost, tokens }),
    ]
}

const WANTED: [Wanted; 3] = [Wanted::Confirmation, Wanted::CustomResult, Wanted::ToolResult];

pub fn word() -> impl Strategy<Value = Word> {
    let wanted = || prop::sample::select(WANTED[1..].to_vec());
    prop_oneof![
        4 => Just(Word::Allow),
        2 => Just(Word::Deny),
        3 => wanted().prop_map(Word::Result),
        1 => wanted().prop_map(Word::ResultAndMore),
        1 => Just(Word::Stop),
    ]
}

pub fn plan() -> impl Strategy<Value = Plan> {
    prop_oneof![
        4 => (0..2_usize, prop::bool::weighted(0.7))
            .prop_map(|(agent, scheduled)| Plan::Create { agent, scheduled }),
        2 => (prop::option::of(any::<bool>()), prop::option::of(0..2_usize))
            .prop_map(|(scheduled, agent)| Plan::Update { scheduled, agent }),
        1 => Just(Plan::Pause),
        1 => Just(Plan::Unpause),
        1 => Just(Plan::Archive),
        6 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(too_late, stale)| Plan::Fire { too_late, stale }),
        2 => (0..2_i64).prop_map(|attempt| Plan::Run { attempt }),
        1 => (1..3_usize, prop::sample::select(vec![0, 100, 1000]))
            .prop_map(|(limit, bytes_max)| Plan::Show { limit, bytes_max }),
    ]
}

pub fn budget() -> impl Strategy<Value = (usize, Budgets)> {
    let few = || prop::option::weighted(0.3, 0..100_i64);
    let one = || {
        (few(), few(), few(), few()).prop_map(|(cost, tokens, model_calls, tool_calls)| Budget {
            cost_usd: cost.map(MicroUsd),
            tokens,
            model_calls: model_calls.map(|n| n / 20),
            tool_calls: tool_calls.map(|n| n / 20),
            seconds: None,
        })
    };
    (0..4_usize, one(), one(), one())
        .prop_map(|(owner, turn, session, day)| (owner, Budgets { turn, session, day }))
}

/// Does it in the turn of a lease. `n` is its place in the list.
pub async fn work(store: &Store, n: usize, lease: &Lease, act: Act, calls: &[Call]) -> Answer {
    let call = |at: usize| match calls.len().checked_sub(1) {
        Some(last) => calls[last.wrapping_sub(at % calls.len())].1.clone(),
        None => id(n),
    };
    let spent = |cost: Option<i64>, tokens| Spent {
        usage: Usage { output_tokens: tokens, ..Usage::default() },
        cost: cost.map(MicroUsd),
    };
    let own: EventId = id(n * 100);
    let beside = match act {
        Act::TakeAnswers { told } => return answer(store.take_answers(lease, told).await),
        Act::Park { says } => {
            let stop_reason = StopReason::RequiresAction { event_ids: vec![call(0)] };
            let idle = EventBody::StatusIdle { stop_reason, stop_details: None };
            let events = says.then(|| NewEvent::new(own, idle)).into_iter().collect();
            return answer(store.park(lease, events, Duration::from_millis(7)).await);
        }
        Act::TakeUp => return answer(store.take_up(lease).await),
        Act::Reserve { cost, tokens } => {
            let model = format!("model {}", n % 2);
            let wish = Wish::Model { cost: cost.map(MicroUsd), tokens, model };
            let reserve = Reserve { common: CommonBudgets::default(), wish, active_ms: 3 };
            let events = vec![event(n, 0)];
            return answer(store.begin_work(lease, events, Beside::default(), reserve).await);
        }
        Act::Spend { cost, tokens } => {
            let beside = Beside { asked: true, ..Beside::default() };
            let events = vec![event(n, 0)];
            return answer(store.append_with(lease, events, spent(cost, tokens), beside).await);
        }
        Act::Intend => {
            let agent_id = id(0);
            let (tool, input) = ("bash".to_owned(), format!("{{\"n\":{n}}}"));
            let intends = Some(NewEffect { call: own, agent_id, tool, input });
            let beside = Beside { intends, ..Beside::default() };
            let (common, wish) = (CommonBudgets::default(), Wish::Tool);
            let reserve = Reserve { common, wish, active_ms: 0 };
            return answer(store.begin_work(lease, Vec::new(), beside, reserve).await);
        }
        Act::Ask { wanted, by_client, lasting } => {
            let patience = if lasting { HOUR } else { Duration::ZERO };
            let use_ = ToolUse { id: own, name: "edit".to_owned(), input: json!({"n": n}) };
            let fingerprint = use_.fingerprint();
            let (call, tool) = (use_.id, use_.name);
            let ask = NewAsk { call, wanted, by_client, tool, fingerprint, patience };
            Beside { asks: vec![ask], ..Beside::default() }
        }
        Act::End { call: at, status } => {
            let ended = Some(EffectEnd { call: call(at), status });
            Beside { ended, tool_calls: 1, ..Beside::default() }
        }
        Act::Settle { call: at, status } => {
            let settlement = Settlement { status, note: Some(format!("saw {n}")) };
            let settles = Some(Found { effect: call(at), agent_id: id(0), settlement });
            Beside { settles, tool_calls: 1, ..Beside::default() }
        }
    };
    let events = vec![event(n, 1)];
    answer(store.append_with(lease, events, Spent::default(), beside).await)
}

/// The call that an act makes, if it is done.
pub fn made(n: usize, lease: &Lease, act: &Act) -> Option<Call> {
    let makes = matches!(act, Act::Ask { .. } | Act::Intend);
    makes.then(|| (lease.session_id.clone(), id(n * 100)))
}

pub async fn say(store: &Store, n: usize, (session, call): Call, word: Word) -> Answer {
    let event_id: EventId = id(n * 100);
    let result = |wanted| {
        let content = vec![Block::text(format!("result {n}"))];
        let (event_id, call, is_error) = (event_id.clone(), call.clone(), n.is_multiple_of(2));
        Said::Result { event_id, call, wanted, content, is_error }
    };
    let confirm = |result| {
        let deny_message = Some(format!("why {n}")).filter(|_| result == Confirmed::Deny);
        Said::Answer { event_id: event_id.clone(), call: call.clone(), result, deny_message }
    };
    let said = match word {
        Word::Allow => vec![confirm(Confirmed::Allow)],
        Word::Deny => vec![confirm(Confirmed::Deny)],
        Word::Result(wanted) => vec![result(wanted)],
        Word::ResultAndMore(wanted) => {
            let content = vec![Block::text(format!("told {n}"))];
            vec![result(wanted), Said::Told { event_id: id(n * 100 + 1), content }]
        }
        Word::Stop => vec![Said::Interrupt { event_id }],
    };
    answer(store.say(&session, said, 10, "somebody".to_owned()).await)
}

/// What a person found out.
pub async fn settle(store: &Store, call: &EventId, status: EffectStatus) -> Answer {
    let settlement = Settlement { status, note: None };
    answer(store.settle_effect(call, settlement, change("effect.settle")).await)
}

pub async fn allow(store: &Store, owner: usize, budgets: Budgets) -> Answer {
    let owner = match owner {
        3 => bellpull::store::BUDGETS_OF_ALL.to_owned(),
        2 => id::<SessionId>(0).to_string(),
        n => id::<bellpull::id::AgentId>(n).to_string(),
    };
    answer(store.set_budgets(owner, ManagedBy::Api, budgets, change("budgets.set")).await)
}

/// A schedule comes each minute.
fn next(_: &Schedule, at: Timestamp) -> Option<Timestamp> {
    Some(Timestamp((at.0 / 60_000 + 1) * 60_000))
}

fn schedule(scheduled: bool) -> Option<Schedule> {
    let (expression, timezone) = ("* * * * *".to_owned(), "UTC".to_owned());
    scheduled.then_some(Schedule { expression, timezone })
}

/// Does it with one of the deployments, the oldest or a newer one.
pub async fn deploy(store: &Store, n: usize, which: usize, plan: Plan) -> Answer {
    let at = store.clock().now();
    let the: DeploymentId = match which {
        0 => id(0),
        n => id(n),
    };
    match plan {
        Plan::Create { agent, scheduled } => {
            let text = "x".repeat(which * 50);
            let content = json!([{"type": "text", "text": text}]);
            let schedule = schedule(scheduled);
            let deployment = Deployment {
                id: the,
                name: format!("deployment {n}"),
                description: None,
                agent_id: id(agent),
                agent_version: 1,
                environment_id: id(0),
                initial_events: vec![json!({"type": "user.message", "content": content})],
                resources: Vec::new(),
                vault_ids: Vec::new(),
                metadata: Default::default(),
                budget: Budget::default(),
                next_at: schedule.as_ref().and_then(|it| next(it, at)),
                schedule,
                paused: None,
                last_run_at: None,
                created_at: at,
                updated_at: at,
                archived_at: None,
            };
            answer(store.create_deployment(deployment, change("x")).await)
        }
        Plan::Update { scheduled, agent } => {
            let schedule = scheduled.map(schedule);
            let agent = agent.map(|agent| (id(agent), 1));
            let name = Some(format!("renamed {n}"));
            let patch = DeploymentPatch { schedule, agent, name, ..DeploymentPatch::default() };
            answer(store.update_deployment(&the, patch, next, change("x")).await)
        }
        Plan::Pause => answer(store.pause_deployment(&the, change("x")).await),
        Plan::Unpause => answer(store.unpause_deployment(&the, next, change("x")).await),
        Plan::Archive => answer(store.archive_deployment(&the, change("x")).await),
        Plan::Fire { too_late, stale } => {
            let due = store.deployment(&the).await.ok().and_then(|it| it.next_at);
            let due = due.unwrap_or(at);
            let claimed = if stale { Timestamp(due.0 - 1) } else { due };
            let next = Some(Timestamp(due.0 + 60_000));
            let passed = Passed { at: due, n_skipped: n as i64 % 3, too_late, next };
            answer(store.fire_deployment(&the, claimed, passed).await)
        }
        Plan::Run { attempt } => {
            let tried = Tried { n: attempt, came_at: at, hash: format!("hash {which}") };
            answer(store.run_deployment(&the, tried, change("x")).await)
        }
        Plan::Show { limit, bytes_max } => {
            let filter = DeploymentFilter {
                include_archived: true,
                limit,
                bytes_max,
                ..DeploymentFilter::default()
            };
            answer(store.deployments(filter).await)
        }
    }
}

/// All that is known of these things.
pub async fn everything(store: &Store) -> Vec<String> {
    let filter = EffectFilter { limit: 1000, ..EffectFilter::default() };
    let runs = RunFilter { limit: 1000, ..RunFilter::default() };
    let deployments = DeploymentFilter {
        include_archived: true,
        limit: 1000,
        bytes_max: usize::MAX,
        ..DeploymentFilter::default()
    };
    vec![
        format!("{:?}", store.effects(filter).await.expect("works")),
        format!("{:?}", store.deployments(deployments).await.expect("works")),
        format!("{:?}", store.deployment_runs(runs).await.expect("works")),
        format!("{:?}", store.due_deployments(1000).await.expect("works")),
    ]
}

/// Columns that no method shows. Times of leases and answers are the database's own.
pub const HIDDEN: [&str; 4] = [
    "select id, session_id, wanted, by_client, status, event_id, deny_message, result, told_id, told, \
     actor, nth, journaled, case when answered_at is null then 0 else 1 end from approvals order by id",
    "select session_id, agent_id, source_id, cost_micros, tokens, model from reservations \
     order by session_id",
    "select scope, case when day = 0 then 0 else 1 end, cast(sum(cost_micros) as bigint), \
     cast(sum(tokens) as bigint), cast(sum(model_calls) as bigint), \
     cast(sum(tool_calls) as bigint), cast(sum(active_ms) as bigint), cast(sum(turns) as bigint), \
     cast(sum(unpriced_calls) as bigint) from spending group by scope, day order by scope, day",
    "select owner, limits from budgets order by owner",
];

/// A text without the ids that the store made.
pub fn alike(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('_') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let n = after.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (word, more) = after.split_at(n);
        // What a test makes is short, and words are not so long.
        out.push_str(if word.len() >= 20 { "*" } else { word });
        rest = more;
    }
    out + rest
}
