//! A node: a process that can end at any moment, and start again.
//!
//! A process is a runtime of its own with a store, a worker and its bells. Nothing in it happens but
//! when it is told to: its tasks run when [`Process::run`] lets them, its database does something
//! when [`Process::write`] or [`Process::read`] says so, and time is the world's. Its runtime has no
//! timer: whatever tried to wait for real time would panic.

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bellpull::{
    clock::{Clock, Timestamp},
    model::{Carrier, Models},
    preview::Previews,
    runtime::Runtime,
    signal::{Signals, Told},
    store::{Hands, Store},
    worker::Worker,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::plan::Shape;

/// What stays when a process ends.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    /// Processes that it has had.
    pub boots: u64,
    pub process: Option<Process>,
    /// Until when nothing of it runs.
    pub stopped_until: Duration,
    /// Until when its database answers nobody.
    pub hangs_until: Duration,
}

impl Node {
    pub fn new(number: usize) -> Node {
        Node {
            name: format!("node{number}"),
            boots: 0,
            process: None,
            stopped_until: Duration::ZERO,
            hangs_until: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
pub struct Process {
    /// As the worker writes it into leases.
    pub owner: String,
    pub store: Store,
    /// Since when something may have changed for its tasks, if they did not run after that.
    dirty_since: Option<Timestamp>,
    /// The worker's bells.
    pub bells: Signals,
    /// What the worker and the runtime tell other nodes. The runtime has bells of its own, so that
    /// its wakes reach the worker only as the world carries them.
    told: [mpsc::Receiver<Told>; 2],
    pub stop: CancellationToken,
    worker: Option<JoinHandle<()>>,
    hands: Hands,
    runtime: tokio::runtime::Runtime,
}

impl Process {
    /// A store without a worker.
    pub fn open(file: &Path, clock: &Clock, owner: String) -> Process {
        let runtime = tokio::runtime::Builder::new_current_thread()
            // All that can run does so before control comes back.
            .event_interval(u32::MAX)
            // Files are written in the order in which that was asked.
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        let (opening, mut hands) =
            Store::by_hand(file, &Shape::store(), clock.clone()).expect("the file opens");
        let store = finish(&runtime, &mut hands, opening).expect("the schema is right");
        let (bells, told) = Signals::new();
        let told = [told, mpsc::channel(1).1];
        let stop = CancellationToken::new();
        let dirty_since = Some(clock.now());
        Process { owner, store, dirty_since, bells, told, stop, worker: None, hands, runtime }
    }

    /// Gives the process its worker.
    pub fn employ(
        &mut self,
        node: &Node,
        shape: &Shape,
        directory: &Path,
        carrier: Arc<dyn Carrier>,
    ) {
        let (signals, told) = Signals::new();
        self.told[1] = told;
        let clock = self.store.clock().clone();
        let models = Models::carried(carrier, shape.model.clone(), clock);
        let options = shape.runtime(directory);
        let runtime =
            Runtime::new(self.store.clone(), signals, Previews::default(), models, options);
        let boot = self.owner.rsplit(':').next().expect("a boot");
        let worker = Worker::new(
            self.store.clone(),
            runtime,
            self.bells.clone(),
            shape.worker.clone(),
            &node.name,
            boot,
        );
        self.worker = Some(self.runtime.spawn(worker.run(self.stop.clone())));
    }

    /// Does something with the store to its end, while nothing else happens.
    pub fn finish<T>(&mut self, work: impl Future<Output = T>) -> T {
        finish(&self.runtime, &mut self.hands, work)
    }

    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
        self.touch();
    }

    /// Something may have changed for its tasks.
    pub fn touch(&mut self) {
        self.dirty_since.get_or_insert(self.store.clock().now());
    }

    /// Whether its tasks may have something to do, and for how long they have not come to it.
    pub fn waits_since(&self) -> Option<Duration> {
        self.dirty_since.map(|since| self.store.clock().now().since(since))
    }

    /// Lets the tasks run until all of them wait for the database, for time or for a bell.
    pub fn run(&mut self, files: bool) {
        self.dirty_since = None;
        if !files {
            return turn_over(&self.runtime);
        }
        while self.run_and_wait_for_files() {}
    }

    /// Lets the tasks run, and after them everything that they asked of files: at the same time, the
    /// one that is quicker would decide what comes first. Tells whether a task goes on after it.
    fn run_and_wait_for_files(&self) -> bool {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        self.runtime.spawn_blocking(move || gate.recv());
        turn_over(&self.runtime);
        drop(go);
        let (done, last) = std::sync::mpsc::channel();
        self.runtime.spawn_blocking(move || done.send(()));
        last.recv().expect("it comes after all that was asked before");
        self.runtime.metrics().global_queue_depth() > 0
    }

    /// How many reads and writes the database has not done yet.
    pub fn waiting(&self) -> (usize, usize) {
        (self.hands.waiting_reads(), self.hands.waiting_writes())
    }

    pub fn read(&mut self) {
        self.hands.read();
        self.touch();
    }

    pub fn write(&mut self, max: usize) {
        self.hands.write(max);
        self.touch();
    }

    /// The wakes that were given since last time: first the runtime's, then the worker's.
    pub fn wakes(&mut self) -> [usize; 2] {
        let count = |told: &mut mpsc::Receiver<Told>| {
            std::iter::from_fn(|| told.try_recv().ok()).filter(|told| *told == Told::Due).count()
        };
        let [worker, runtime] = &mut self.told;
        [count(runtime), count(worker)]
    }

    pub fn has_ended(&self) -> bool {
        self.worker.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

/// Two rounds: a task that used up its budget goes on in the second one.
fn turn_over(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    });
}

fn finish<T>(
    runtime: &tokio::runtime::Runtime,
    hands: &mut Hands,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        let polled = {
            let _inside = runtime.enter();
            work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        if let Poll::Ready(done) = polled {
            return done;
        }
        turn_over(runtime);
        hands.read();
        hands.write(usize::MAX);
    }
}
