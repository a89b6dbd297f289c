//! What messages that come during a turn ask of it.
//!
//! The strongest of them stands in the session's row, which every write of the turn locks anyway: so
//! the turn hears of it with its next entry in the journal at the latest. Left out: the messages,
//! which wait in the inbox like all others.

use super::{TakenMessage, hold, take, write};
use crate::{
    domain::source::WhenBusy,
    id::SessionId,
    store::{
        Error, Lease, Result, Store,
        driver::{Lane, params},
    },
};

/// What messages that came during a turn ask of it, as `sessions.urgency` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    #[default]
    None = 0,
    /// To be taken up before the model is asked again.
    Steer = 1,
    /// To make way.
    Supersede = 2,
    /// To stop, because somebody said so.
    Interrupt = 3,
}

impl Urgency {
    pub(super) fn of(stored: i64) -> Urgency {
        match stored {
            1 => Urgency::Steer,
            2 => Urgency::Supersede,
            3 => Urgency::Interrupt,
            _ => Urgency::None,
        }
    }
}

impl From<WhenBusy> for Urgency {
    fn from(when_busy: WhenBusy) -> Urgency {
        match when_busy {
            WhenBusy::Queue | WhenBusy::Skip => Urgency::None,
            WhenBusy::Steer => Urgency::Steer,
            WhenBusy::Supersede => Urgency::Supersede,
        }
    }
}

impl Store {
    /// Takes what waits into the turn that is under way, as its next events.
    pub async fn take_up(&self, lease: &Lease) -> Result<Vec<TakenMessage>> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let held = hold(tx, &lease)?;
                let turn_id = held.turn_id.clone().ok_or(Error::Bug("taking up without a turn"))?;
                let mut rows = Vec::new();
                let messages = take(tx, &held, &turn_id, at, &mut rows)?;
                write(tx, &held, rows, "running", at)?;
                Ok(messages)
            })
            .await
    }

    /// Sessions that this owner works on and whose turn shall stop.
    pub async fn urgent(&self, owner: String) -> Result<Vec<SessionId>> {
        self.driver
            .read(move |tx| {
                let sql = "select id from sessions where lease_owner = $1 and urgency >= 2";
                tx.query(sql, &params![owner])?.into_iter().map(|mut row| row.id(0)).collect()
            })
            .await
    }

    /// What the messages that wait ask of the session's turn.
    pub async fn urgency(&self, session: &SessionId) -> Result<Urgency> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = "select urgency from sessions where id = $1";
                let mut row = tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                Ok(Urgency::of(row.int(0)?))
            })
            .await
    }
}
