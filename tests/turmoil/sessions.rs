//! Each message arrives exactly once and in order, whatever becomes of the connections.

use std::cell::RefCell;
use std::io::{Error, Result};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, interval};
use turmoil::net::{TcpListener, TcpStream};

use sessiond::chunk::Chunk;
use sessiond::replication::Message;
use sessiond::replication::link::{Inbox, Opened, Outbox};
use sessiond::replication::message::{LaneMessage, Packet};
use sessiond::version::Epoch;

use crate::wire::{KEEP_ALIVE, PORT, keep_dialing, split};
use crate::{disturb, new_sim, pass, seeds};

const MESSAGES: u64 = 4000;
/// Between two messages.
const PACE: Duration = Duration::from_millis(3);
const TELL: Duration = Duration::from_millis(50);

/// What the test sees.
#[derive(Default)]
struct Seen {
    arrived: Vec<u64>,
    connections: u64,
    acked: u64,
}

type Shared = Arc<Mutex<Seen>>;

#[test]
fn each_message_arrives_once_and_in_order_over_connections_that_break() {
    let mut connections = 0;
    for seed in seeds(20) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sim = new_sim(seed);
        let seen = Shared::default();
        let (sender, receiver) = (Arc::clone(&seen), Arc::clone(&seen));
        sim.host("receiver", move || receive(Arc::clone(&receiver)));
        sim.host("sender", move || send(Arc::clone(&sender)));
        while sim.elapsed() < PACE * MESSAGES as u32 {
            pass(&mut sim, Duration::from_millis(rng.random_range(1..1500)));
            disturb(&mut sim, "sender", "receiver", &mut rng);
        }
        // Whoever reads notices after the silence that its connection is dead; then all goes over.
        pass(&mut sim, Duration::from_secs(6));
        let seen = seen.lock().unwrap();
        let all: Vec<u64> = (1..=MESSAGES).collect();
        assert!(seen.arrived == all, "seed {seed}: {} have arrived", seen.arrived.len());
        assert_eq!(seen.acked, MESSAGES, "seed {seed}");
        connections += seen.connections;
    }
    let seeds = seeds(20).count() as u64;
    assert!(connections > 2 * seeds, "only {connections} connections: none ever broke");
}

async fn send(seen: Shared) -> turmoil::Result {
    let outbox = Rc::new(RefCell::new(Outbox::new(1, 64 << 20)));
    let filled = Rc::clone(&outbox);
    spawn_local(async move {
        let mut pace = interval(PACE);
        for number in 1..=MESSAGES {
            pace.tick().await;
            let message = Message::Lane(0, Epoch(1), LaneMessage::AppliedUpTo(number));
            filled
                .borrow_mut()
                .push(Packet::of(&message, &mut Chunk::default()))
                .expect("there is room for all");
        }
    });
    keep_dialing("receiver", async |stream| talk(stream, &outbox, &seen).await).await;
    Ok(())
}

async fn talk(stream: TcpStream, outbox: &RefCell<Outbox>, seen: &Shared) -> Result<()> {
    let (mut reader, mut writer) = split(stream);
    let position = outbox.borrow().position();
    writer.write(&Message::Received(position)).await?;
    let Message::Received(received) = reader.read().await? else { panic!("no position") };
    assert_eq!(outbox.borrow_mut().resume(received), Some(Ok(())));
    let mut pace = interval(PACE);
    loop {
        tokio::select! {
            read = reader.read() => {
                let Message::Received(received) = read? else { panic!("no acknowledgement") };
                outbox.borrow_mut().received(received);
                seen.lock().unwrap().acked = outbox.borrow().position().up_to;
            }
            _ = pace.tick() => loop {
                let Some(packet) = outbox.borrow_mut().next_unsent().cloned() else { break };
                writer.write_frame(&packet.0).await?;
            },
        }
    }
}

async fn receive(seen: Shared) -> turmoil::Result {
    let inbox = Rc::new(RefCell::new(Inbox::default()));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let mut older: Option<JoinHandle<Result<()>>> = None;
    loop {
        let (stream, _) = listener.accept().await?;
        seen.lock().unwrap().connections += 1;
        let hearing = hear(stream, Rc::clone(&inbox), Arc::clone(&seen));
        if let Some(older) = older.replace(spawn_local(hearing)) {
            older.abort();
        }
    }
}

async fn hear(stream: TcpStream, inbox: Rc<RefCell<Inbox>>, seen: Shared) -> Result<()> {
    let (mut reader, mut writer) = split(stream);
    let Message::Received(position) = reader.read().await? else { panic!("no position") };
    let session = position.session;
    let opened = inbox.borrow_mut().open(session);
    let Opened::After(position) = opened else { panic!("{opened:?}: there is one session") };
    writer.write(&Message::Received(position)).await?;
    let (mut counted, mut spoke) = (position.up_to, Instant::now());
    let mut tell = interval(TELL);
    loop {
        tokio::select! {
            read = reader.read() => {
                let Message::Lane(_, _, LaneMessage::AppliedUpTo(number)) = read? else {
                    panic!("this was never sent")
                };
                counted += 1;
                let taken = inbox.borrow_mut().take(session, counted);
                if taken.map_err(|_| Error::other("a message is missing"))? {
                    seen.lock().unwrap().arrived.push(number);
                }
            }
            _ = tell.tick() => {
                let is_quiet = spoke.elapsed() >= KEEP_ALIVE;
                let news = inbox.borrow_mut().tell();
                let news = news.or_else(|| is_quiet.then(|| inbox.borrow().position()));
                if let Some(position) = news {
                    writer.write(&Message::Received(position)).await?;
                    spoke = Instant::now();
                }
            }
        }
    }
}
