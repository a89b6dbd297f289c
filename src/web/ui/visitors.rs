//! Who is signed in: a bounded table in memory, lost with the process.
//!
//! An entry holds the hash of the API key that was given, never the key, and is found by the hash of
//! a random token that only the visitor's browser has. Invariant: an entry says who somebody was when
//! signing in; whether that key still opens anything is asked of the registry at each request.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use super::shown::{Shown, Waiting};
use crate::{
    clock::Timestamp,
    vault::{self, hash},
};

/// Without a request for so long, a visitor is signed out.
const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);

/// And in any case after this.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Signed-in browsers at once. One more signs out the one that was quiet for longest.
const VISITORS_MAX: usize = 1_000;

/// Wrong keys in [`WRONG_WINDOW`] after which no further ones are looked at for a while: of each browser
/// that signed in before, and of all others together. So whoever guesses keys keeps nobody out who has
/// been here since this process began.
const WRONG_MAX: usize = 10;
const WRONG_WINDOW: Duration = Duration::from_secs(60);

/// SHA-256 of something.
pub(super) type Hash = [u8; 32];

#[derive(Debug)]
struct Entry {
    key: Hash,
    /// What the forms of this visitor carry.
    csrf: String,
    since: Timestamp,
    seen: Timestamp,
    /// What forms led to and no page has shown yet.
    shown: Waiting,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entry: Hash,
    pub(super) key: Hash,
    pub(super) csrf: String,
}

pub(in crate::web) struct Visitors {
    table: Mutex<Table>,
    /// Makes the tokens of the sign-in form.
    form_key: [u8; 32],
}

#[derive(Default)]
struct Table {
    entries: HashMap<Hash, Entry>,
    /// By the browser, of those that are known.
    wrong: HashMap<Option<String>, VecDeque<Timestamp>>,
}

impl Default for Visitors {
    fn default() -> Visitors {
        Visitors { table: Mutex::default(), form_key: vault::random() }
    }
}

impl fmt::Debug for Visitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitors").field("n", &self.lock().entries.len()).finish_non_exhaustive()
    }
}

impl Visitors {
    /// Signs a browser in with the key of this hash. Answers its token.
    pub(super) fn sign_in(&self, key: Hash, now: Timestamp) -> String {
        let token = random_text();
        let mut table = self.lock();
        table.entries.retain(|_, entry| entry.lives(now));
        if table.entries.len() >= VISITORS_MAX {
            let quietest = table.entries.iter().min_by_key(|(_, entry)| entry.seen);
            if let Some(quietest) = quietest.map(|(id, _)| *id) {
                table.entries.remove(&quietest);
            }
        }
        let (csrf, shown) = (random_text(), Waiting::default());
        let entry = Entry { key, csrf, since: now, seen: now, shown };
        table.entries.insert(hash(token.as_bytes()), entry);
        token
    }

    /// Who has this token. `active` says that a person did something, so the idle time begins anew.
    pub(super) fn find(&self, token: &str, now: Timestamp, active: bool) -> Option<Found> {
        let id = hash(token.as_bytes());
        let mut table = self.lock();
        let entry = table.entries.get_mut(&id)?;
        if !entry.lives(now) {
            table.entries.remove(&id);
            return None;
        }
        if active {
            entry.seen = now;
        }
        Some(Found { entry: id, key: entry.key, csrf: entry.csrf.clone() })
    }

    /// The key of an entry that is still there.
    pub(super) fn key(&self, entry: &Hash, now: Timestamp) -> Option<Hash> {
        self.lock().entries.get(entry).filter(|entry| entry.lives(now)).map(|entry| entry.key)
    }

    pub(super) fn forget(&self, entry: &Hash) {
        self.lock().entries.remove(entry);
    }

    /// Keeps what a page of this visitor shows next. Answers its name.
    pub(super) fn keep(&self, entry: &Hash, shown: Shown) -> String {
        let mut table = self.lock();
        table.entries.get_mut(entry).map(|entry| entry.shown.put(shown)).unwrap_or_default()
    }

    pub(super) fn take(&self, entry: &Hash, name: &str) -> Option<Shown> {
        self.lock().entries.get_mut(entry)?.shown.take(name)
    }

    /// Whether another key may be tried now by this browser, or by one that is not known.
    pub(super) fn may_try(&self, browser: Option<&str>, now: Timestamp) -> bool {
        let mut table = self.lock();
        table.wrong.retain(|_, wrong| {
            wrong.retain(|at| now.since(*at) < WRONG_WINDOW);
            !wrong.is_empty()
        });
        let wrong = table.wrong.get(&browser.map(str::to_owned));
        wrong.is_none_or(|wrong| wrong.len() < WRONG_MAX)
    }

    pub(super) fn note_wrong(&self, browser: Option<&str>, now: Timestamp) {
        self.lock().wrong.entry(browser.map(str::to_owned)).or_default().push_back(now);
    }

    /// The token of a sign-in form that was shown to whoever has this nonce.
    pub(super) fn form_token(&self, nonce: &str) -> String {
        self.mark("form", nonce)
    }

    /// What a browser is known by from its first sign-in on.
    pub(super) fn new_browser(&self) -> String {
        let nonce = random_text();
        format!("{nonce}.{}", self.mark("browser", &nonce))
    }

    /// Whether we gave this one out.
    pub(super) fn knows(&self, browser: &str) -> bool {
        let parts = browser.split_once('.');
        parts.is_some_and(|(nonce, mark)| same(mark, &self.mark("browser", nonce)))
    }

    /// Proves that a text went out from this process, for one purpose.
    fn mark(&self, purpose: &str, nonce: &str) -> String {
        let mut text = self.form_key.to_vec();
        text.extend_from_slice(&hash(purpose.as_bytes()));
        text.extend_from_slice(&hash(nonce.as_bytes()));
        vault::hex(&hash(&text))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn lives(&self, now: Timestamp) -> bool {
        now.since(self.since) < LIFE_MAX && now.since(self.seen) < IDLE_MAX
    }
}

/// 32 random bytes as text.
pub(super) fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(vault::random::<32>())
}

/// Whether two tokens are the same, in a time that does not depend on where they differ.
pub(super) fn same(one: &str, other: &str) -> bool {
    // The hashes have one length, so not even that is told.
    hash(one.as_bytes()).ct_eq(&hash(other.as_bytes())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_visitor_leaves_after_idling_and_after_a_week_at_most() {
        let (visitors, start) = (Visitors::default(), Timestamp(1_000));
        let token = visitors.sign_in([1; 32], start);
        let mut now = start.plus(HOUR * 11);
        assert!(visitors.find(&token, now, true).is_some());
        // What the page asks for by itself does not count.
        assert!(visitors.find(&token, now.plus(HOUR * 11), false).is_some());
        assert!(visitors.find(&token, now.plus(HOUR * 12), false).is_none());

        let token = visitors.sign_in([1; 32], start);
        now = start;
        for _ in 0..16 {
            now = now.plus(HOUR * 10);
            assert!(visitors.find(&token, now, true).is_some());
        }
        assert!(visitors.find(&token, now.plus(HOUR * 10), true).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_tokens_are_their_own() {
        let visitors = Visitors::default();
        let first = visitors.sign_in([1; 32], Timestamp(0));
        for n in 1..=VISITORS_MAX {
            visitors.sign_in([2; 32], Timestamp(n as i64));
        }
        assert!(visitors.find(&first, Timestamp(2_000), true).is_none());
        assert_eq!(visitors.lock().entries.len(), VISITORS_MAX);
        assert!(visitors.find("guess", Timestamp(2_000), true).is_none());
    }

    #[test]
    fn wrong_keys_are_counted_for_a_minute() {
        let visitors = Visitors::default();
        for n in 0..WRONG_MAX {
            assert!(visitors.may_try(None, Timestamp(n as i64)));
            visitors.note_wrong(None, Timestamp(n as i64));
        }
        assert!(!visitors.may_try(None, Timestamp(59_999)));
        assert!(visitors.may_try(None, Timestamp(60_000)));
    }

    #[test]
    fn whoever_guesses_keeps_nobody_out_who_was_here() {
        let visitors = Visitors::default();
        let (one, other) = (visitors.new_browser(), visitors.new_browser());
        assert!(visitors.knows(&one) && visitors.knows(&other) && one != other);
        for wrong in ["", ".", "a.b", &one[1..], &Visitors::default().new_browser()] {
            assert!(!visitors.knows(wrong), "{wrong}");
        }
        for _ in 0..WRONG_MAX {
            visitors.note_wrong(None, Timestamp(0));
            visitors.note_wrong(Some(&one), Timestamp(0));
        }
        assert!(!visitors.may_try(None, Timestamp(1)));
        assert!(!visitors.may_try(Some(&one), Timestamp(1)));
        assert!(visitors.may_try(Some(&other), Timestamp(1)));
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same("a", "a"));
        assert!(!same("a", "ab") && !same("", "a"));
    }
}
