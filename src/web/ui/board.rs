//! The bell board: every source that lets somebody in, as a bell.
//!
//! In an old house a board of bells hung below stairs, one for each room, each on a spring that went
//! on swaying after it had rung. So here: who rang last, which bell cannot ring, and which rings now.

use std::{collections::HashMap, time::Duration};

use super::{super::App, fault::Fault, view::Moment};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::{Outcome, Status},
        source::SourceKind,
        text::printable,
    },
    id::SourceId,
    ingest::{Entry, Snapshot},
    store::{LastDelivery, LastRefusals},
};

/// How long a bell sways after it rang.
const SWAYS: Duration = Duration::from_secs(20);

/// A source that rang before and has not for so long is silent.
const SILENT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bells on the board. More are counted.
const BELLS_MAX: usize = 24;

#[derive(Debug)]
pub(super) struct Bell {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) class: &'static str,
    /// What the colour says, in words.
    pub(super) state: String,
    /// Said below the name instead of when it rang.
    pub(super) note: Option<&'static str>,
    pub(super) rang: Option<Moment>,
}

#[derive(Debug)]
pub(super) struct Board {
    pub(super) bells: Vec<Bell>,
    pub(super) n_more: usize,
}

/// The newest delivery of each source that has one.
pub(super) type Came = HashMap<SourceId, LastDelivery>;

/// What happened last at each source: its newest delivery, and what was refused after that.
#[derive(Debug, Default)]
pub(super) struct Last {
    came: Came,
    refused: HashMap<SourceId, LastRefusals>,
}

/// Refusals of the last day are a matter for a person when there are so many and nothing was let in
/// after them: one or two are somebody who tries an address.
const REFUSED_MIN: usize = 3;
const REFUSED_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// Refusals that are looked at.
const REFUSALS_MAX: usize = 2_000;

pub(super) async fn came(app: &App, snapshot: &Snapshot) -> Result<Came, Fault> {
    let sources = snapshot.sources().iter().map(|it| it.source.id.clone()).collect();
    let came = app.store.last_deliveries(sources).await?;
    Ok(came.into_iter().map(|it| (it.source_id.clone(), it)).collect())
}

pub(super) async fn last(app: &App, snapshot: &Snapshot) -> Result<Last, Fault> {
    let came = came(app, snapshot).await?;
    let since = app.store.clock().now().minus(REFUSED_WITHIN);
    let refused = app.store.refused_since(since, REFUSED_MIN, REFUSALS_MAX).await?;
    let refused = refused.into_iter().map(|it| (it.source_id.clone(), it)).collect();
    Ok(Last { came, refused })
}

pub(super) fn board(snapshot: &Snapshot, last: &Last, now: Timestamp) -> Board {
    let mut entries = snapshot.sources();
    // Named sources first, then those of the agents, by the name that is shown.
    entries.sort_by_key(|it| {
        (matches!(it.source.kind, SourceKind::Agent(_)), it.display_name().to_lowercase())
    });
    let n_more = entries.len().saturating_sub(BELLS_MAX);
    let bells = entries.iter().take(BELLS_MAX);
    let bells = bells.map(|entry| bell(entry, last, now)).collect();
    Board { bells, n_more }
}

pub(super) fn bell(entry: &Entry, last: &Last, now: Timestamp) -> Bell {
    let source = &entry.source;
    let href = match &source.kind {
        SourceKind::Agent(id) => format!("/agents/{id}/webhook"),
        SourceKind::Named => format!("/sources/{}", source.name),
    };
    let (class, state) = state(entry, last, now);
    let came = last.came.get(&source.id);
    Bell {
        name: printable(entry.display_name()),
        href,
        note: match class {
            "broken" => Some("holds"),
            "muted" => Some("paused"),
            "mute" => Some(match source.kind {
                SourceKind::Agent(_) => "no token",
                SourceKind::Named => "no secret",
            }),
            "quiet" if came.is_none() => Some("never rang"),
            _ => None,
        },
        class,
        state,
        rang: came.map(|it| Moment::new(it.received_at, now)),
    }
}

fn state(entry: &Entry, last: &Last, now: Timestamp) -> (&'static str, String) {
    if let Some(reason) = entry.broken() {
        return ("broken", format!("holds what comes in: {}", printable(reason)));
    }
    if entry.source.paused {
        return ("muted", "paused".to_owned());
    }
    if entry.secrets.is_wanted() && !entry.secrets.is_set() {
        return ("mute", "has no secret yet, so nobody can ring it".to_owned());
    }
    if let Some(refused) = last.refused.get(&entry.source.id) {
        let reason = printable(&refused.reason);
        return ("failed", format!("refused the last {} requests: {reason}", refused.n));
    }
    let Some(last) = last.came.get(&entry.source.id) else {
        return ("quiet", "never rang".to_owned());
    };
    if now.since(last.received_at) < SWAYS {
        return ("ringing", "rings".to_owned());
    }
    match (last.status, last.outcome) {
        (Status::Held, _) => ("broken", "has a delivery that is held".to_owned()),
        (Status::Filtered, _) => ("rang", "filtered the last delivery".to_owned()),
        (_, Some(Outcome::Failed | Outcome::InDoubt)) => {
            ("failed", "failed at the last delivery".to_owned())
        }
        (_, Some(Outcome::Pending | Outcome::Running | Outcome::Waiting)) => {
            ("busy", "is being answered".to_owned())
        }
        (_, Some(Outcome::Succeeded | Outcome::Cancelled) | None)
            if now.since(last.received_at) > SILENT =>
        {
            ("quiet", "has been silent for a week or longer".to_owned())
        }
        (_, Some(Outcome::Succeeded | Outcome::Cancelled) | None) => {
            ("rang", "answered".to_owned())
        }
    }
}

/// Bells that cannot ring, that refuse all that comes, whose last delivery failed, or that have fallen
/// silent: a word, what is the matter, and where that is settled. An agent whose webhook has no token is
/// as it should be: most agents are rung by sources.
pub(super) fn troubles(
    snapshot: &Snapshot,
    last: &Last,
    now: Timestamp,
) -> Vec<(&'static str, String, String)> {
    let of = |entry: &Entry| {
        let bell = bell(entry, last, now);
        let word = match bell.class {
            "broken" | "failed" => "source",
            "mute" if entry.source.kind == SourceKind::Named => "no secret",
            "quiet" if bell.rang.is_some() => "silent",
            _ => return None,
        };
        Some((word, format!("{} {}", bell.name, bell.state), bell.href))
    };
    snapshot.sources().into_iter().filter_map(of).collect()
}
