//! The threads that serve clients, each with a runtime of its own.
//!
//! In a group with one worker, that serves the data links as well: nobody has to be woken on another
//! thread for what the nodes say to each other about its clients' commands.

use std::fs;
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{self, Handle, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

use super::courier::Waiter;
use super::handover::Passed;
use super::listener::{Bound, Listener};
use super::net::Tcp;
use super::{Options, Shared, StartError, accept, clock, data};
use crate::node::Node;

/// What one of them has to do.
#[derive(Default)]
struct Work {
    listeners: Vec<Arc<Listener>>,
    /// Those of the process before.
    clients: Vec<Passed>,
}

/// A thread with its runtime, which waits for its clients.
pub(super) struct Worker {
    handle: Handle,
    begin: oneshot::Sender<Work>,
    work: Work,
}

/// Starts the threads, and the data links on one of them or on a thread of their own: a node that is
/// filled before it lets clients in has links without clients.
pub(super) fn start(
    count: usize,
    links: Option<data::Group<Tcp>>,
    shared: &Arc<Shared>,
) -> Result<Vec<Worker>, StartError> {
    let mut of_first = match links {
        Some(links) if count > 1 => {
            data::start(Arc::clone(&shared.node), links)?;
            None
        }
        links => links,
    };
    (0..count).map(|number| Worker::start(number, of_first.take(), Arc::clone(shared))).collect()
}

/// Listens for clients, and has the workers serve them. Returns where those who come another way are
/// given to.
pub(super) fn open(
    mut workers: Vec<Worker>,
    options: &Options,
    (bound, clients): (Vec<Bound>, Vec<Passed>),
    shared: &Arc<Shared>,
) -> Result<Vec<Handle>, StartError> {
    let (settings, count) = (&options.node.settings, workers.len());
    let handles: Vec<_> = workers.iter().map(|worker| worker.handle.clone()).collect();
    let ports: String = bound.iter().filter_map(Bound::port_line).collect();
    for one in bound {
        let address = one.to_string();
        let of_workers = one.listen(settings.backlog, &handles)?;
        let each = of_workers.into_iter();
        each.for_each(|(number, listener)| workers[number].work.listeners.push(Arc::new(listener)));
        tracing::info!(%address, "accepting clients");
    }
    let listeners = workers.iter().flat_map(|worker| &worker.work.listeners);
    shared.orders.note_listeners(listeners.map(Arc::downgrade).collect());
    if let Some(path) = &options.port_file {
        write_ports(path, &ports);
    }
    for (number, client) in clients.into_iter().enumerate() {
        workers[number % count].work.clients.push(client);
    }
    for Worker { begin, work, .. } in workers {
        // It ends with the process.
        let _ = begin.send(work);
    }
    Ok(handles)
}

impl Worker {
    fn start(
        number: usize,
        links: Option<data::Group<Tcp>>,
        shared: Arc<Shared>,
    ) -> Result<Self, StartError> {
        let (begin, work) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let body = move || match new_runtime() {
            Ok(runtime) => {
                let _ = tell.send(Ok(runtime.handle().clone()));
                runtime.block_on(serve(number, shared, links, work));
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(body)
            .map_err(|error| StartError::System("start a worker thread", error))?;
        let handle = told.recv().expect("the thread says how its runtime begins")?;
        Ok(Self { handle, begin, work: Work::default() })
    }
}

/// Unlike the other threads' it takes tasks that stay on their thread, with no queue of their own:
/// so links speak after all clients and peers who were heard at once, and once for all of them.
fn new_runtime() -> Result<LocalRuntime, StartError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| StartError::System("start a runtime", error))
}

async fn serve(
    worker: usize,
    shared: Arc<Shared>,
    links: Option<data::Group<Tcp>>,
    work: oneshot::Receiver<Work>,
) {
    if let Some(links) = links {
        tokio::task::spawn_local(data::run(Arc::clone(&shared.node), links));
    }
    let Ok(Work { listeners, clients }) = work.await else {
        return;
    };
    clients.into_iter().for_each(|client| accept::take_over(client, worker, &shared));
    for listener in listeners {
        listens(&shared.node, worker, &listener);
        tokio::spawn(accept::accept(listener, worker, Arc::clone(&shared)));
    }
    pending().await
}

/// Shows a listening socket among the connections.
fn listens(node: &Node<Waiter>, worker: usize, listener: &Listener) {
    if let Ok((descriptor, local)) = listener.socket() {
        node.listens(worker, descriptor, local, clock::now(node));
    }
}

/// Moved into place, so that nobody finds half of it. As with memcached, only worth a warning.
fn write_ports(path: &Path, ports: &str) {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".lck");
    let written = fs::write(&draft, ports).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot write the file of the ports");
    }
}
