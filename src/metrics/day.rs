//! The last day in stretches of half an hour: what people look at without a monitoring system.
//!
//! Counting adds to numbers that belong to no time; whoever keeps the day puts what was counted since
//! the last look into the stretch of now. Invariant: so counting asks for no time and waits for nobody.
//! Left out: what this process did not count itself, as before its start or on another node.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{ANSWER, Received};
use crate::{clock::Timestamp, domain::turn::TurnEnd};

/// How long one stretch is.
const STRETCH_MS: i64 = 30 * 60 * 1000;

/// Stretches of a day.
const STRETCHES: usize = 48;

const N_RECEIVED: usize = Received::ALL.len();
const N_ANSWERS: usize = ANSWER.len() + 1;
const N_TURNS: usize = TurnEnd::ALL.len();

/// What was counted in one stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub began: Timestamp,
    received: [u64; N_RECEIVED],
    answers: [u64; N_ANSWERS],
    turns: [u64; N_TURNS],
}

impl Stretch {
    fn of(at: Timestamp) -> Stretch {
        Stretch {
            began: begin(at),
            received: [0; N_RECEIVED],
            answers: [0; N_ANSWERS],
            turns: [0; N_TURNS],
        }
    }

    /// Requests to webhooks that came to one of these.
    pub fn received(&self, these: &[Received]) -> u64 {
        let all = Received::ALL.iter().zip(self.received);
        all.filter(|(received, _)| these.contains(received)).map(|(_, n)| n).sum()
    }

    /// Turns that ended in one of these ways.
    pub fn turns(&self, these: &[TurnEnd]) -> u64 {
        let all = TurnEnd::ALL.iter().zip(self.turns);
        all.filter(|(end, _)| these.contains(end)).map(|(_, n)| n).sum()
    }

    /// Within what time so many of a hundred deliveries were answered; `None` where none was. What
    /// took longer than is measured counts as the longest that is.
    pub fn answered_within(&self, percent: u64) -> Option<Duration> {
        let n: u64 = self.answers.iter().sum();
        let wanted = (n * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.answers.iter().position(|n| {
            seen += n;
            seen >= wanted
        })?;
        Some(Duration::from_secs_f64(ANSWER[bucket.min(ANSWER.len() - 1)]))
    }

    fn add(&mut self, other: &Stretch) {
        let add = |to: &mut [u64], from: &[u64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        add(&mut self.received, &other.received);
        add(&mut self.answers, &other.answers);
        add(&mut self.turns, &other.turns);
    }
}

/// When the stretch of a moment began.
fn begin(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0.rem_euclid(STRETCH_MS))
}

#[derive(Debug)]
pub(super) struct Day {
    received: [AtomicU64; N_RECEIVED],
    answers: [AtomicU64; N_ANSWERS],
    turns: [AtomicU64; N_TURNS],
    /// Oldest first; stretches in which nobody looked are missing.
    kept: Mutex<VecDeque<Stretch>>,
}

impl Default for Day {
    fn default() -> Day {
        fn zeros<const N: usize>() -> [AtomicU64; N] {
            std::array::from_fn(|_| AtomicU64::new(0))
        }
        Day { received: zeros(), answers: zeros(), turns: zeros(), kept: Mutex::default() }
    }
}

impl Day {
    pub(super) fn received(&self, nth: usize) {
        self.received[nth].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, after: Duration) {
        let bucket = ANSWER.partition_point(|bound| *bound < after.as_secs_f64());
        self.answers[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turn_ended(&self, end: TurnEnd) {
        if let Some(nth) = TurnEnd::ALL.iter().position(|it| *it == end) {
            self.turns[nth].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts what was counted since the last time into the stretch of now.
    pub(super) fn keep(&self, now: Timestamp) {
        let take = |n: &AtomicU64| n.swap(0, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = Stretch {
            began: begin(now),
            received: self.received.each_ref().map(take),
            answers: self.answers.each_ref().map(take),
            turns: self.turns.each_ref().map(take),
        };
        match kept.back_mut() {
            // A clock that was set back goes on in the newest stretch.
            Some(last) if last.began >= counted.began => last.add(&counted),
            _ => kept.push_back(counted),
        }
        let surplus = kept.len().saturating_sub(STRETCHES);
        kept.drain(..surplus);
    }

    /// The day up to now, without gaps, oldest first.
    pub(super) fn stretches(&self, now: Timestamp) -> Vec<Stretch> {
        self.keep(now);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = begin(now).0 - STRETCH_MS * (STRETCHES as i64 - 1);
        let times = (0..STRETCHES).map(|n| Timestamp(first + STRETCH_MS * n as i64));
        let found = |at| kept.iter().find(|it| it.began == at).cloned();
        times.map(|at| found(at).unwrap_or_else(|| Stretch::of(at))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stands_in_its_half_hour() {
        let (day, start) = (Day::default(), Timestamp(1_795_291_200_000));
        let minutes = |n: i64| Timestamp(start.0 + n * 60_000);
        day.received(0);
        day.answered(Duration::from_millis(3));
        day.keep(minutes(1));
        day.received(0);
        day.keep(minutes(29));
        day.received(3);
        day.answered(Duration::from_secs(60));
        day.turn_ended(TurnEnd::Failed);
        let stretches = day.stretches(minutes(31));
        assert_eq!(stretches.len(), STRETCHES);
        let [.., before, last] = stretches.as_slice() else { panic!("two") };
        assert_eq!((before.began, last.began), (start, minutes(30)));
        assert_eq!(before.received(&[Received::Accepted]), 2);
        assert_eq!(last.received(&[Received::Accepted, Received::Held]), 1);
        assert_eq!((before.turns(&TurnEnd::ALL), last.turns(&[TurnEnd::Failed])), (0, 1));
        assert_eq!(before.answered_within(99), Some(Duration::from_millis(5)));
        assert_eq!(last.answered_within(50), Some(Duration::from_secs(10)));
        // A day later it is gone.
        assert_eq!(day.stretches(minutes(24 * 60 + 31))[0].received(&Received::ALL), 0);
    }
}
