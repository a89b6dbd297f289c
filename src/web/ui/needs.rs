//! What needs a person, all of it: calls that ask, effects in doubt, callbacks that were given up, held
//! deliveries, and sources that fail or have fallen silent.
//!
//! Invariant: nothing is cut silently; each list is counted whole, the overview shows the first few of
//! it, and its pages show the rest. Left out: the forms' work, which the pages of sessions, deliveries
//! and callbacks do.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::App,
    board,
    fault::Fault,
    guard::{Fields, Visitor},
    looks::{self, Wants},
    overview::source_name,
    page as rendered,
    payload::Payload,
    place,
    view::{Moment, Shell, count as number},
};
use crate::{
    clock::Timestamp,
    domain::{delivery::Status, effect::EffectStatus, text::printable},
    ingest::Snapshot,
    store::{
        DeliveryFilter, EffectFilter, NEEDED_MAX, OutgoingFilter, OutgoingStatus, Page as Found,
    },
};

/// Things of one kind on the page of all kinds, and on a page of its own.
const FIRST_MAX: usize = 10;
const LIST_MAX: usize = 50;

/// What it is that needs a person, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Approvals,
    Doubts,
    Callbacks,
    Held,
    Sources,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] =
        [Kind::Approvals, Kind::Doubts, Kind::Callbacks, Kind::Held, Kind::Sources];

    /// As the address names it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Approvals => "approvals",
            Kind::Doubts => "doubts",
            Kind::Callbacks => "callbacks",
            Kind::Held => "held",
            Kind::Sources => "sources",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Kind::Approvals => "Approvals",
            Kind::Doubts => "Effects in doubt",
            Kind::Callbacks => "Callbacks that were given up",
            Kind::Held => "Held deliveries",
            Kind::Sources => "Sources that fail or are silent",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Kind::Approvals => "The session stands still until somebody says whether it may.",
            Kind::Doubts => {
                "The server stopped while these were carried out. Look outside what became of each, \
                 and say it here."
            }
            Kind::Callbacks => "The receiver did not take these, however often they were sent.",
            Kind::Held => {
                "Nobody got these. Mend the reason, then release them: each goes where its source \
                 leads to then."
            }
            Kind::Sources => {
                "Bells that cannot ring, that refuse what comes, that failed last, or that rang once \
                 and stopped."
            }
        }
    }

    fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// How much there is of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; 5]);

impl Counts {
    pub(super) fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// For the navigation; nothing where nothing waits.
    pub(super) fn shown(&self) -> Option<String> {
        Some(self.all()).filter(|n| *n > 0).map(said)
    }
}

/// A count, as far as it was counted.
pub(super) fn said(n: u64) -> String {
    let more = if n >= NEEDED_MAX { "+" } else { "" };
    format!("{}{more}", number(i64::try_from(n).unwrap_or(i64::MAX)))
}

/// Something that only a person can settle.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) text: String,
    /// Where it is seen with everything around it.
    pub(super) href: String,
    pub(super) at: Option<Moment>,
    detail: Option<Payload>,
    act: Act,
}

/// What can be done about it at once.
#[derive(Debug)]
enum Act {
    /// Only where it is.
    There,
    Answer {
        session: String,
        until: Moment,
    },
    Settle {
        session: String,
    },
    SendAgain,
    Release,
}

/// One kind, with as much of it as is shown.
struct Section {
    kind: Kind,
    n: String,
    items: Vec<Item>,
    /// Where there is more, on the page of all kinds; the next page, on one of its own.
    more: Option<String>,
}

#[derive(Template)]
#[template(path = "needs.html")]
struct Page {
    shell: Shell,
    /// The one kind that is shown, if it is one.
    kind: Option<Kind>,
    notice: Option<&'static str>,
    list: List,
}

#[derive(Template)]
#[template(path = "needs.html", block = "live")]
struct Live {
    list: List,
}

struct List {
    sections: Vec<Section>,
    /// For looking it up again, and for coming back after a form.
    query: String,
    /// Of a visitor who may change something.
    csrf: Option<String>,
}

#[derive(Template)]
#[template(path = "needs_count.html")]
struct Count {
    needs: Option<String>,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let part = query.text("part");
    if part == Some("count") {
        let counted = looks::needs(&app, Wants::Lately).await?;
        return rendered(&Count { needs: counted.counts.shown() });
    }
    let wants = if part.is_some() { Wants::Lately } else { Wants::Now };
    let counted = looks::needs(&app, wants).await?;
    let kind = query.text("kind").and_then(Kind::parse);
    let list = list(&app, &visitor, &query, kind, &counted).await?;
    if part == Some("live") {
        return rendered(&Live { list });
    }
    let visitor = Visitor { needs: counted.counts.shown(), ..visitor };
    let shell = Shell::new(visitor, "needs", app.store.clock().now());
    rendered(&Page { shell, kind, notice: place::notice(&query), list })
}

async fn list(
    app: &App,
    visitor: &Visitor,
    query: &Fields,
    kind: Option<Kind>,
    counted: &Counted,
) -> Result<List, Fault> {
    let (snapshot, now) = (app.ingest.registry.snapshot(), app.store.clock().now());
    let reader = Reader { app, snapshot: &snapshot, last: &counted.last, now };
    let cursor = query.text("page").filter(|_| kind.is_some());
    let mut sections = Vec::new();
    for one in Kind::ALL {
        if kind.is_some_and(|kind| kind != one) {
            continue;
        }
        let limit = if kind.is_some() { LIST_MAX } else { FIRST_MAX };
        let found = reader.items(one, cursor, limit).await?;
        let name = one.as_str();
        let more = match (kind, found.next) {
            (_, None) => None,
            (None, Some(_)) => Some(format!("/needs?kind={name}")),
            (Some(_), Some(next)) => Some(format!("/needs?kind={name}&page={next}")),
        };
        // What came between the count and the list is counted by the list.
        let n = counted.counts.of(one).max(found.data.len() as u64);
        if !found.data.is_empty() || kind.is_some() {
            sections.push(Section { kind: one, n: said(n), items: found.data, more });
        }
    }
    let mut address = String::new();
    if let Some(kind) = kind {
        address = format!("kind={}", kind.as_str());
        if let Some(cursor) =
            cursor.filter(|it| it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'))
        {
            address.push_str(&format!("&page={cursor}"));
        }
    }
    Ok(List { sections, query: address, csrf: visitor.may_change.then(|| visitor.csrf.clone()) })
}

/// What was counted, and what happened last at each source, which some of it follows from.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) counts: Counts,
    pub(super) last: board::Last,
}

/// Counts everything.
pub(super) async fn count(app: &App) -> Result<Counted, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let needed = app.store.needed().await?;
    let last = board::last(app, &snapshot).await?;
    let troubles = board::troubles(&snapshot, &last, app.store.clock().now());
    let n_troubles = troubles.len() as u64;
    let counts = Counts([needed.questions, needed.doubts, needed.dead, needed.held, n_troubles]);
    Ok(Counted { counts, last })
}

/// Reads the lists of one moment.
pub(super) struct Reader<'a> {
    pub(super) app: &'a App,
    pub(super) snapshot: &'a Snapshot,
    pub(super) last: &'a board::Last,
    pub(super) now: Timestamp,
}

impl Reader<'_> {
    /// Some of one kind, after those of the page before.
    pub(super) async fn items(
        &self,
        kind: Kind,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Found<Item>, Fault> {
        match kind {
            Kind::Approvals => self.approvals(cursor, limit).await,
            Kind::Doubts => self.doubts(cursor, limit).await,
            Kind::Callbacks => self.callbacks(cursor, limit).await,
            Kind::Held => self.held(cursor, limit).await,
            Kind::Sources => Ok(self.sources(cursor, limit)),
        }
    }

    fn at(&self, at: Timestamp) -> Option<Moment> {
        Some(Moment::new(at, self.now))
    }

    async fn approvals(&self, cursor: Option<&str>, limit: usize) -> Result<Found<Item>, Fault> {
        let after = cursor.and_then(|it| it.parse().ok());
        let found = self.app.store.questions(after, limit).await?;
        let items = found.data.into_iter().map(|it| {
            let input = it.input.map(|input| input.to_string());
            Item {
                class: "waiting",
                word: "approval",
                text: format!("{} asks to run {}", printable(&it.agent_name), printable(&it.tool)),
                href: format!("/sessions/{}#{}", it.session_id, it.id),
                at: self.at(it.asked_at),
                detail: input.as_deref().map(Payload::new),
                act: Act::Answer {
                    session: it.session_id.to_string(),
                    until: Moment::new(it.expires_at, self.now),
                },
                id: it.id.to_string(),
            }
        });
        Ok(Found { data: items.collect(), next: found.next })
    }

    async fn doubts(&self, cursor: Option<&str>, limit: usize) -> Result<Found<Item>, Fault> {
        let filter = EffectFilter {
            status: Some(EffectStatus::InDoubt),
            cursor: cursor.and_then(|it| it.parse().ok()),
            limit,
            ..EffectFilter::default()
        };
        let found = self.app.store.effects(filter).await?;
        let items = found.data.into_iter().map(|it| Item {
            class: "failed",
            word: "in doubt",
            text: format!("Was {} carried out?", printable(&it.tool)),
            href: format!("/sessions/{}#doubts", it.session_id),
            at: self.at(it.intended_at),
            detail: Some(Payload::new(&it.input)),
            act: Act::Settle { session: it.session_id.to_string() },
            id: it.id.to_string(),
        });
        Ok(Found { data: items.collect(), next: found.next })
    }

    async fn callbacks(&self, cursor: Option<&str>, limit: usize) -> Result<Found<Item>, Fault> {
        let filter = OutgoingFilter {
            status: Some(OutgoingStatus::Dead),
            cursor: cursor.and_then(|it| it.parse().ok()),
            limit,
            ..OutgoingFilter::default()
        };
        let found = self.app.store.outgoing(filter).await?;
        let items = found.data.into_iter().map(|it| {
            let code = it.last_code.map(|code| format!("the receiver answered {code}"));
            let why = it.last_error.as_deref().map(printable).or(code);
            let why = why.unwrap_or_else(|| "the receiver did not take it".to_owned());
            let session = it.session_id.as_ref();
            Item {
                class: "failed",
                word: "callback",
                text: format!("{} was not sent: {why}", printable(&it.kind)),
                href: session
                    .map_or("/sources".to_owned(), |id| format!("/sessions/{id}#callbacks")),
                at: self.at(it.created_at),
                detail: None,
                act: Act::SendAgain,
                id: it.id.to_string(),
            }
        });
        Ok(Found { data: items.collect(), next: found.next })
    }

    async fn held(&self, cursor: Option<&str>, limit: usize) -> Result<Found<Item>, Fault> {
        let filter = DeliveryFilter {
            status: Some(Status::Held),
            unreplayed: true,
            cursor: cursor.and_then(|it| it.parse().ok()),
            limit,
            ..DeliveryFilter::default()
        };
        let found = self.app.store.deliveries(filter).await?;
        let items = found.data.into_iter().map(|it| {
            let reason = it.reason.as_deref().unwrap_or("no reason was written down");
            let source = source_name(self.snapshot, &it.source_name);
            Item {
                class: "failed",
                word: "held",
                text: format!("{source}: {}", printable(reason)),
                href: format!("/deliveries/{}", it.id),
                at: self.at(it.received_at),
                detail: None,
                act: Act::Release,
                id: it.id.to_string(),
            }
        });
        Ok(Found { data: items.collect(), next: found.next })
    }

    /// These are in memory, so a page is a number of them.
    fn sources(&self, cursor: Option<&str>, limit: usize) -> Found<Item> {
        let all = board::troubles(self.snapshot, self.last, self.now);
        // The address says it, so it may be any number.
        let begin = cursor.and_then(|it| it.parse().ok()).unwrap_or(0).min(all.len());
        let end = begin + limit.min(all.len());
        let next = (end < all.len()).then(|| end.to_string());
        let items = all.into_iter().skip(begin).take(limit).map(|(word, text, href)| Item {
            id: href.clone(),
            class: "failed",
            word,
            text,
            href,
            at: None,
            detail: None,
            act: Act::There,
        });
        Found { data: items.collect(), next }
    }
}
