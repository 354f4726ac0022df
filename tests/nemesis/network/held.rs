//! Packets that come late. The kernel hands over what arrives for a host, and is told later to let it
//! in: what `tc netem` does, which not every kernel has, and here a seed tells how late.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Any: every host has queues of its own.
pub(crate) const QUEUE: u16 = 1;
/// Packets that wait at most; what comes on top is lost, as in a router.
const QUEUE_MAX: u32 = 20_000;
/// Of each packet so much is copied: nobody looks at it.
const COPIED_BYTES: u16 = 64;
/// Between two looks.
const LOOK: Duration = Duration::from_micros(500);

/// How late packets are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lateness {
    /// Each by at least, and at most so much; none overtakes another.
    Steady(Duration, Duration),
    /// One in four by up to so much, and others overtake it.
    Shuffled(Duration),
}

/// Holds packets until it is dropped.
pub(crate) struct Held {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A queue of the host on which this is called.
pub(crate) fn open() -> Result<Queue, String> {
    let failed = |error: std::io::Error| format!("no queue for packets here: {error}");
    let mut queue = Queue::open().map_err(failed)?;
    queue.bind(QUEUE).map_err(failed)?;
    queue.set_copy_range(QUEUE, COPIED_BYTES).map_err(failed)?;
    queue.set_queue_max_len(QUEUE, QUEUE_MAX).map_err(failed)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

impl Held {
    pub(crate) fn start(queue: Queue, lateness: Lateness, seed: u64) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let rng = StdRng::seed_from_u64(seed);
        let holder = Holder { queue, lateness, rng, waiting: BTreeMap::new(), held: 0 };
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || holder.hold(&told));
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("nothing in it panics");
        }
    }
}

struct Holder {
    queue: Queue,
    lateness: Lateness,
    rng: StdRng,
    /// By when they are let in, and the order in which they came.
    waiting: BTreeMap<(Instant, u64), Message>,
    held: u64,
}

impl Holder {
    fn hold(mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            self.take();
            self.let_in(Instant::now());
            sleep(LOOK);
        }
        while let Some((_, message)) = self.waiting.pop_first() {
            self.accept(message);
        }
    }

    fn take(&mut self) {
        loop {
            match self.queue.recv() {
                Ok(message) => {
                    let due = self.due();
                    self.held += 1;
                    self.waiting.insert((due, self.held), message);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The packet is lost, as packets are.
                Err(_) => return,
            }
        }
    }

    fn due(&mut self) -> Instant {
        let now = Instant::now();
        match self.lateness {
            Lateness::Steady(least, most) => {
                let due = now + self.rng.random_range(least..most);
                let last = self.waiting.last_key_value().map(|(&(last, _), _)| last);
                last.map_or(due, |last| due.max(last))
            }
            Lateness::Shuffled(most) if self.rng.random_ratio(1, 4) => {
                now + self.rng.random_range(Duration::ZERO..most)
            }
            Lateness::Shuffled(_) => now,
        }
    }

    fn let_in(&mut self, now: Instant) {
        while self.waiting.first_key_value().is_some_and(|(&(due, _), _)| due <= now) {
            if let Some((_, message)) = self.waiting.pop_first() {
                self.accept(message);
            }
        }
    }

    fn accept(&mut self, mut message: Message) {
        message.set_verdict(Verdict::Accept);
        // Refused when the packet's device has gone down; then the packet has gone as well.
        let _ = self.queue.verdict(message);
    }
}
