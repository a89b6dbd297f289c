//! How many turns deliveries become: those of one session that come close together are one.
//!
//! Pure, and one delivery at a time in the order of their arrival, so that a million of them need no
//! memory but for the sessions that something still waits in.

use std::{collections::HashMap, hash::Hash};

use super::source::Debounce;
use crate::clock::Timestamp;

/// Counts turns.
#[derive(Debug)]
pub struct Turns<K> {
    /// Without one, each delivery is a turn of its own.
    debounce: Option<Debounce>,
    waiting: HashMap<K, Wait>,
    n: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    first: Timestamp,
    last: Timestamp,
}

/// Sessions that are remembered before those whose turn has begun are forgotten.
const WAITING_MAX: usize = 10_000;

impl<K: Eq + Hash> Turns<K> {
    pub fn new(debounce: Option<Debounce>) -> Turns<K> {
        Turns { debounce, waiting: HashMap::new(), n: 0 }
    }

    /// A delivery to the session of this key, or to one of its own.
    pub fn add(&mut self, at: Timestamp, key: Option<K>) {
        let (Some(Debounce { quiet, longest }), Some(key)) = (self.debounce, key) else {
            self.n += 1;
            return;
        };
        let is_open = |wait: &Wait| at.since(wait.last) < quiet && at.since(wait.first) < longest;
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|_, wait| is_open(wait));
        }
        match self.waiting.get_mut(&key) {
            Some(wait) if is_open(wait) => wait.last = at,
            _ => {
                self.waiting.insert(key, Wait { first: at, last: at });
                self.n += 1;
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.n
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_comes_close_together_is_one_turn() {
        let check = |debounce: Option<(u64, u64)>, deliveries: &[(i64, Option<&str>)], n: u64| {
            let seconds = Duration::from_secs;
            let debounce = debounce.map(|(quiet, longest)| Debounce {
                quiet: seconds(quiet),
                longest: seconds(longest),
            });
            let mut turns = Turns::new(debounce);
            for (second, key) in deliveries {
                turns.add(Timestamp(second * 1000), *key);
            }
            assert_eq!(turns.count(), n, "{deliveries:?}");
        };
        let (a, b) = (Some("a"), Some("b"));
        let long = Some((10, 100));
        check(None, &[(0, a), (0, a), (0, None)], 3);
        check(long, &[(0, a), (9, a), (18, a), (27, a)], 1);
        check(long, &[(0, a), (10, a), (20, a)], 3);
        check(Some((10, 20)), &[(0, a), (9, a), (18, a), (27, a), (36, a)], 2);
        check(long, &[(0, a), (1, b), (2, a), (3, b), (4, None), (5, None)], 4);
        let many: Vec<String> = (0..25_000).map(|n| n.to_string()).collect();
        let many: Vec<_> =
            many.iter().enumerate().map(|(n, key)| (n as i64, Some(key.as_str()))).collect();
        check(long, &many, 25_000);
    }
}
