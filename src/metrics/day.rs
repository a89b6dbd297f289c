//! The last day in stretches of half an hour: what people look at without a monitoring system.
//!
//! Counting adds to numbers that belong to no time; whoever keeps the day puts what was counted since
//! the last look into the stretch of now. Invariant: so counting asks for no time and waits for nobody.
//! Left out: where it is kept for the next life of this node, and for other nodes (`store::days`).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

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

/// The words that a stretch is written in.
#[derive(Serialize, Deserialize)]
struct Written {
    received: BTreeMap<String, u64>,
    /// By the bound of their bucket, in microseconds; what took longer has none.
    answers: Vec<(Option<u64>, u64)>,
    turns: BTreeMap<String, u64>,
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

    /// What began by then is older than a day.
    pub fn gone_by(now: Timestamp) -> Timestamp {
        Timestamp(begin(now).0 - STRETCH_MS * STRETCHES as i64)
    }

    pub fn to_text(&self) -> String {
        let bounds = ANSWER.iter().map(|bound| Some(micros(*bound))).chain([None]);
        let written = Written {
            received: named(Received::ALL.map(Received::as_str), self.received),
            answers: bounds.zip(self.answers).filter(|(_, n)| *n > 0).collect(),
            turns: named(TurnEnd::ALL.map(TurnEnd::as_str), self.turns),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// What [`Stretch::to_text`] wrote, as far as it is still counted; none of anything else.
    pub fn parse(began: Timestamp, text: &str) -> Option<Stretch> {
        let written: Written = serde_json::from_str(text).ok()?;
        let mut stretch = Stretch::of(began);
        for (received, n) in Received::ALL.iter().zip(&mut stretch.received) {
            *n = written.received.get(received.as_str()).copied().unwrap_or(0);
        }
        for (end, n) in TurnEnd::ALL.iter().zip(&mut stretch.turns) {
            *n = written.turns.get(end.as_str()).copied().unwrap_or(0);
        }
        for (bound, n) in written.answers {
            let fits = |bound| ANSWER.partition_point(|own| micros(*own) < bound);
            stretch.answers[bound.map_or(ANSWER.len(), fits)] += n;
        }
        Some(stretch)
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

fn micros(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_micros()).unwrap_or(u64::MAX)
}

/// Of numbers those that there are.
fn named<const N: usize>(names: [&str; N], numbers: [u64; N]) -> BTreeMap<String, u64> {
    let all = names.into_iter().zip(numbers).filter(|(_, n)| *n > 0);
    all.map(|(name, n)| (name.to_owned(), n)).collect()
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
    kept: Mutex<VecDeque<Kept>>,
    others: Mutex<Vec<Stretch>>,
}

#[derive(Debug)]
struct Kept {
    stretch: Stretch,
    /// Whether all of it is written down, or there is nothing to write.
    is_written: bool,
}

impl Default for Day {
    fn default() -> Day {
        fn zeros<const N: usize>() -> [AtomicU64; N] {
            std::array::from_fn(|_| AtomicU64::new(0))
        }
        Day {
            received: zeros(),
            answers: zeros(),
            turns: zeros(),
            kept: Mutex::default(),
            others: Mutex::default(),
        }
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
        let mut kept = lock(&self.kept);
        let counted = Stretch {
            began: begin(now),
            received: self.received.each_ref().map(take),
            answers: self.answers.each_ref().map(take),
            turns: self.turns.each_ref().map(take),
        };
        let is_nothing = counted == Stretch::of(now);
        match kept.back_mut() {
            // A clock that was set back goes on in the newest stretch.
            Some(last) if last.stretch.began >= counted.began => {
                last.stretch.add(&counted);
                last.is_written &= is_nothing;
            }
            _ => kept.push_back(Kept { stretch: counted, is_written: is_nothing }),
        }
        let surplus = kept.len().saturating_sub(STRETCHES);
        kept.drain(..surplus);
    }

    /// What an earlier life of this node counted and wrote down, oldest first.
    pub(super) fn take_up(&self, earlier: Vec<Stretch>) {
        let mut kept = lock(&self.kept);
        for stretch in earlier.into_iter().rev() {
            match kept.iter_mut().find(|it| it.stretch.began == stretch.began) {
                Some(own) => own.stretch.add(&stretch),
                None => kept.push_front(Kept { stretch, is_written: true }),
            }
        }
    }

    /// Whatever is not written down as it is by now, oldest first.
    pub(super) fn unwritten(&self, now: Timestamp) -> Vec<Stretch> {
        self.keep(now);
        let kept = lock(&self.kept);
        kept.iter().filter(|it| !it.is_written).map(|it| it.stretch.clone()).collect()
    }

    /// These are written down; what was counted in them meanwhile is not.
    pub(super) fn wrote(&self, stretches: &[Stretch]) {
        let mut kept = lock(&self.kept);
        for own in kept.iter_mut().filter(|it| stretches.contains(&it.stretch)) {
            own.is_written = true;
        }
    }

    pub(super) fn set_others(&self, others: Vec<Stretch>) {
        *lock(&self.others) = others;
    }

    /// The day of all nodes up to now, without gaps, oldest first.
    pub(super) fn stretches(&self, now: Timestamp) -> Vec<Stretch> {
        self.keep(now);
        let (kept, others) = (lock(&self.kept), lock(&self.others));
        let first = begin(now).0 - STRETCH_MS * (STRETCHES as i64 - 1);
        let times = (0..STRETCHES).map(|n| Timestamp(first + STRETCH_MS * n as i64));
        let sum = |at| {
            let mut sum = Stretch::of(at);
            let all = kept.iter().map(|it| &it.stretch).chain(&*others);
            all.filter(|it| it.began == at).for_each(|it| sum.add(it));
            sum
        };
        times.map(sum).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Written down once, and again when there is more.
        let news = day.unwritten(minutes(31));
        assert_eq!(news, stretches[STRETCHES - 2..]);
        day.wrote(&news);
        assert_eq!(day.unwritten(minutes(32)), []);
        day.received(0);
        assert_eq!(day.unwritten(minutes(33)).len(), 1);
        // The next life goes on with it, and others have counted too.
        let next = Day::default();
        let read = news.iter().map(|it| Stretch::parse(it.began, &it.to_text()).unwrap());
        next.take_up(read.collect());
        next.set_others(news.clone());
        assert_eq!(next.unwritten(minutes(34)), []);
        next.turn_ended(TurnEnd::Failed);
        assert_eq!(next.unwritten(minutes(34))[0].turns(&TurnEnd::ALL), 2);
        let sum = next.stretches(minutes(34));
        assert_eq!(sum[STRETCHES - 2].received(&Received::ALL), 4);
        assert_eq!(sum[STRETCHES - 1].turns(&[TurnEnd::Failed]), 3);
        assert_eq!(sum[STRETCHES - 1].answered_within(50), Some(Duration::from_secs(10)));
        assert_eq!(Stretch::parse(start, "[]"), None);
        // A day later it is gone.
        assert_eq!(day.stretches(minutes(24 * 60 + 31))[0].received(&Received::ALL), 0);
    }
}
