//! What many open pages ask for again and again, looked up once for all of them.
//!
//! Invariant: whoever loads a page sees what is so now; only what a page asks for by itself, and the
//! number beside "Needs you", may be up to [`LOOK_FOR`] old, and none of it is older than the last form
//! that was sent. Left out: what depends on the visitor.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::{super::App, fault::Fault, needs, overview};

/// How long one look stands for further pages.
const LOOK_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(in crate::web) struct Looks {
    needs: Look<needs::Counted>,
    overview: Look<overview::Now>,
    /// Grows with every form: what was seen before counts no more.
    n_changes: AtomicU64,
}

/// The last look, with when it began and how many forms there had been.
type Last<T> = Option<(Instant, u64, Arc<T>)>;

#[derive(Debug)]
struct Look<T>(Mutex<Last<T>>);

impl<T> Default for Look<T> {
    fn default() -> Look<T> {
        Look(Mutex::default())
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// A person who loads a page.
    Now,
    /// A page by itself.
    Lately,
}

impl<T> Look<T> {
    /// Whoever waits for a look that began after they came has it too.
    async fn get(
        &self,
        app: &App,
        wants: Wants,
        look: impl AsyncFnOnce() -> Result<T, Fault>,
    ) -> Result<Arc<T>, Fault> {
        let came = app.store.clock().monotonic();
        let mut last = self.0.lock().await;
        let now = app.store.clock().monotonic();
        let n_changes = app.looks.n_changes.load(Ordering::Acquire);
        if let Some((at, then, found)) = &*last {
            let is_good = match wants {
                Wants::Now => *at > came,
                Wants::Lately => now.saturating_duration_since(*at) < LOOK_FOR,
            };
            if is_good && *then == n_changes {
                return Ok(found.clone());
            }
        }
        let found = Arc::new(look().await?);
        *last = Some((now, n_changes, found.clone()));
        Ok(found)
    }
}

impl Looks {
    /// Somebody sent a form.
    pub(super) fn note_change(&self) {
        self.n_changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// How much needs a person.
pub(super) async fn needs(app: &App, wants: Wants) -> Result<Arc<needs::Counted>, Fault> {
    app.looks.needs.get(app, wants, async || needs::count(app).await).await
}

/// What the overview says.
pub(super) async fn overview(app: &App, wants: Wants) -> Result<Arc<overview::Now>, Fault> {
    app.looks.overview.get(app, wants, async || overview::look(app).await).await
}
