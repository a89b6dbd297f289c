//! How many turns of an agent or of a source there may be at once, and how many may begin in a minute.
//!
//! Who is at work is counted from the sessions themselves, from the claim that begins a turn to the
//! commit that ends it, also while the turn waits for another try: so there is nothing to give back,
//! whatever becomes of a worker. Invariant: the rows of the limits are locked before anybody is
//! counted, so that two nodes do not both give the last room away. Only who is limited has a row, and
//! without any a claim costs one look into an empty table. Left out: who gets the room.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Result,
    driver::{Row, Tx, params},
};
use crate::{clock::Timestamp, domain::turn::TurnLimits};

const MINUTE: Duration = Duration::from_secs(60);

/// The room that a claim may give away.
pub(super) struct Rooms {
    now: Timestamp,
    /// By agent or source.
    limited: BTreeMap<String, Room>,
}

struct Room {
    limits: TurnLimits,
    /// Counted when somebody asks.
    left: Option<Left>,
}

#[derive(Clone, Copy)]
struct Left {
    turns: usize,
    /// When there will be room by itself; none when somebody has to leave.
    from: Option<Timestamp>,
}

const ALL: &str = "select owner, at_once_max, per_minute_max from turn_limits order by owner";

impl Rooms {
    /// For a claim: nobody else gives any of it away until this transaction ends.
    pub(super) fn hold(tx: &mut Tx<'_>, now: Timestamp) -> Result<Rooms> {
        Rooms::read(tx, &format!("{ALL} {{wait}}"), now)
    }

    /// For whoever only wonders.
    pub(super) fn look(tx: &mut Tx<'_>, now: Timestamp) -> Result<Rooms> {
        Rooms::read(tx, ALL, now)
    }

    fn read(tx: &mut Tx<'_>, sql: &str, now: Timestamp) -> Result<Rooms> {
        let rows = tx.query(sql, &[])?.into_iter();
        let limited = rows.map(|mut row| {
            let room = Room { limits: from_row(&mut row, 1)?, left: None };
            Ok((row.text(0)?, room))
        });
        Ok(Rooms { now, limited: limited.collect::<Result<_>>()? })
    }

    /// How many turns may begin that are of all these owners.
    pub(super) fn left(&mut self, tx: &mut Tx<'_>, owners: [&str; 2]) -> Result<usize> {
        let mut least = usize::MAX;
        for owner in owners {
            least = least.min(self.of(tx, owner)?.map_or(usize::MAX, |left| left.turns));
        }
        Ok(least)
    }

    /// When a turn may begin that is of all these owners; none when that is not a matter of time.
    pub(super) fn open_from(
        &mut self,
        tx: &mut Tx<'_>,
        owners: [&str; 2],
    ) -> Result<Option<Timestamp>> {
        let mut latest = Some(self.now);
        for owner in owners {
            if let Some(left) = self.of(tx, owner)? {
                latest = latest.zip(left.from).map(|(one, other)| one.max(other));
            }
        }
        Ok(latest)
    }

    /// So many turns of all these owners are about to begin.
    pub(super) fn take(&mut self, owners: [&str; 2], n: usize) {
        for owner in owners {
            let left = self.limited.get_mut(owner).and_then(|room| room.left.as_mut());
            if let Some(left) = left {
                left.turns = left.turns.saturating_sub(n);
            }
        }
    }

    /// Writes down whose turns begin now, where their number in a minute counts.
    pub(super) fn begin<'a>(
        &self,
        tx: &mut Tx<'_>,
        owners: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let mut begun: BTreeMap<&str, i64> = BTreeMap::new();
        for owner in owners {
            if self.limited.get(owner).is_some_and(|room| room.limits.per_minute_max.is_some()) {
                *begun.entry(owner).or_default() += 1;
            }
        }
        for (owner, n) in begun {
            // What is ahead is from before the clock was set back.
            tx.execute(
                "delete from turns_begun where owner = $1 and (at <= $2 or at > $3)",
                &params![owner, self.now.minus(MINUTE), self.now],
            )?;
            tx.execute(
                "insert into turns_begun (owner, at, n) values ($1, $2, $3) \
                 on conflict (owner, at) do update set n = turns_begun.n + excluded.n",
                &params![owner, self.now, n],
            )?;
        }
        Ok(())
    }

    fn of(&mut self, tx: &mut Tx<'_>, owner: &str) -> Result<Option<Left>> {
        let Some(room) = self.limited.get_mut(owner) else { return Ok(None) };
        if room.left.is_none() {
            room.left = Some(count(tx, owner, room.limits, self.now)?);
        }
        Ok(room.left)
    }
}

fn count(tx: &mut Tx<'_>, owner: &str, limits: TurnLimits, now: Timestamp) -> Result<Left> {
    let mut left = Left { turns: usize::MAX, from: Some(now) };
    if let Some(max) = limits.per_minute_max {
        let mut room = i64::from(max);
        let sql = "select at, n from turns_begun where owner = $1 and at > $2 and at <= $3 \
                   order by at desc";
        for mut row in tx.query(sql, &params![owner, now.minus(MINUTE), now])? {
            let at = row.time(0)?;
            room -= row.int(1)?;
            if room <= 0 {
                // When this one is a minute old.
                left.from = Some(at.plus(MINUTE));
                break;
            }
        }
        left.turns = usize::try_from(room).unwrap_or(0);
    }
    if let Some(max) = limits.at_once_max {
        // An id is either an agent's or a source's.
        let at_work = "(turn_id is not null or lease_owner is not null)";
        let sql = format!(
            "select (select count(*) from sessions where agent_id = $1 and {at_work}) \
             + (select count(*) from sessions where source_id = $1 and {at_work})"
        );
        let at_work = tx.first(&sql, &params![owner])?.map_or(Ok(0), |mut row| row.int(0))?;
        let room = usize::try_from(i64::from(max) - at_work).unwrap_or(0);
        left.turns = left.turns.min(room);
        if room == 0 {
            left.from = None;
        }
    }
    Ok(left)
}

/// The limits of an agent or a source, from now on. Who has none has no row.
pub(super) fn put(tx: &mut Tx<'_>, owner: &str, limits: TurnLimits) -> Result<()> {
    let TurnLimits { at_once_max, per_minute_max } = limits;
    if limits == TurnLimits::default() {
        tx.execute("delete from turn_limits where owner = $1", &params![owner])?;
    } else {
        tx.execute(
            "insert into turn_limits (owner, at_once_max, per_minute_max) values ($1, $2, $3) \
             on conflict (owner) do update set at_once_max = excluded.at_once_max, \
             per_minute_max = excluded.per_minute_max",
            &params![owner, at_once_max.map(i64::from), per_minute_max.map(i64::from)],
        )?;
    }
    if per_minute_max.is_none() {
        tx.execute("delete from turns_begun where owner = $1", &params![owner])?;
    }
    Ok(())
}

/// The two columns from here on.
pub(super) fn from_row(row: &mut Row, at: usize) -> Result<TurnLimits> {
    let mut max = |at| Ok(row.int_or_null(at)?.and_then(|max| u32::try_from(max).ok()));
    Ok(TurnLimits { at_once_max: max(at)?, per_minute_max: max(at + 1)? })
}
