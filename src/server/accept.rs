//! Lets clients in, as many as there may be.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Duration, sleep};

use super::client::Since;
use super::handover::Passed;
use super::listener::{self, Accepted, Listener};
use super::{Shared, client, clock};
use crate::node::{Endpoint, Socket};
use crate::protocol::reply;

/// How often a connection above the limit looks for a free place; memcached looks as often.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Usually out of file descriptors: trying again at once would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Accepts for one worker until nobody new is to be let in. Whoever waits in the queue of a socket
/// that nobody else holds is let in still: when that closes, they would see an error.
pub(super) async fn accept(listener: Arc<Listener>, worker: usize, shared: Arc<Shared>) {
    let mut closing = pin!(shared.drain.closing_of(worker));
    loop {
        tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = listener.accept() => take_in(accepted, worker, &shared).await,
        }
    }
    while !listener.is_held() {
        let waiting = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = std::future::ready(()) => break,
        };
        take_in(waiting, worker, &shared).await;
    }
}

async fn take_in(accepted: io::Result<Accepted>, worker: usize, shared: &Arc<Shared>) {
    match accepted {
        Ok(stream) => {
            if admit(&stream, worker, shared).await {
                serve(stream, Since::Connection, worker, shared);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept");
            sleep(ACCEPT_AGAIN).await;
        }
    }
}

/// A client of the process before this one goes on here; it has its place already.
pub(super) fn take_over(client: Passed, worker: usize, shared: &Arc<Shared>) {
    let Passed { socket, is_logged_in } = client;
    shared.node.gauges().connections.try_take(u64::MAX);
    let stream = match socket_domain(&socket) {
        Ok(AddressFamily::UNIX) => UnixStream::from_std(socket.into()).map(Accepted::Unix),
        Ok(_) => TcpStream::from_std(socket.into()).map(Accepted::Tcp),
        Err(error) => Err(error.into()),
    };
    let since = if is_logged_in { Since::Login } else { Since::Connection };
    match stream {
        Ok(stream) => serve(stream, since, worker, shared),
        Err(error) => lost(&error, shared),
    }
}

/// Takes a place for the connection, or says that there is none.
async fn admit(stream: &Accepted, worker: usize, shared: &Shared) -> bool {
    let settings = &shared.node.options().settings;
    let (counters, gauges) = (shared.node.counters(worker), shared.node.gauges());
    let limit = settings.connections_max as u64;
    if !gauges.connections.try_take(limit) {
        if settings.maxconns_fast {
            counters.rejected_connections.add(1);
            refuse(stream);
            return false;
        }
        // With this one in hand nobody else is accepted here: they wait in the kernel's queue.
        counters.listen_disabled_num.add(1);
        gauges.listeners_paused.try_take(u64::MAX);
        let since = clock::local();
        while !gauges.connections.try_take(limit) {
            sleep(LOOK_AGAIN).await;
        }
        gauges.listeners_paused.give_back();
        counters.time_in_listen_disabled_us.add(clock::local().since(since) * 1000);
    }
    counters.total_connections.add(1);
    true
}

/// It fits the empty send buffer; should it not, closing says enough.
fn refuse(stream: &Accepted) {
    let _ = match stream {
        Accepted::Tcp(stream) => stream.try_write(reply::TOO_MANY_CONNECTIONS),
        Accepted::Unix(stream) => stream.try_write(reply::TOO_MANY_CONNECTIONS),
    };
}

fn serve(stream: Accepted, since: Since, worker: usize, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    match stream {
        Accepted::Tcp(stream) => serve_tcp(stream, since, worker, shared),
        Accepted::Unix(stream) => serve_unix(stream, since, worker, shared),
    }
}

fn serve_tcp(stream: TcpStream, since: Since, worker: usize, shared: Arc<Shared>) {
    // Replies are written whole, so waiting for more could only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let seconds = shared.node.options().settings.idle_timeout_s;
    let idle_max = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    match socket_of_tcp(&stream) {
        Ok(socket) => {
            drop(tokio::spawn(client::serve((stream, socket), since, idle_max, worker, shared)))
        }
        Err(error) => lost(&error, &shared),
    }
}

fn serve_unix(stream: UnixStream, since: Since, worker: usize, shared: Arc<Shared>) {
    // As in memcached, a client on the same machine may be idle for as long as it likes.
    match socket_of_unix(&stream) {
        Ok(socket) => {
            drop(tokio::spawn(client::serve((stream, socket), since, None, worker, shared)))
        }
        Err(error) => lost(&error, &shared),
    }
}

/// It was gone before anybody could look at it.
fn lost(error: &io::Error, shared: &Shared) {
    tracing::debug!(%error, "connection lost at once");
    shared.node.gauges().connections.give_back();
}

fn socket_of_tcp(stream: &TcpStream) -> io::Result<Socket> {
    Ok(Socket {
        descriptor: stream.as_raw_fd(),
        remote: Endpoint::Tcp(stream.peer_addr()?),
        local: Endpoint::Tcp(stream.local_addr()?),
    })
}

fn socket_of_unix(stream: &UnixStream) -> io::Result<Socket> {
    Ok(Socket {
        descriptor: stream.as_raw_fd(),
        remote: listener::endpoint_of_unix(&stream.peer_addr()?),
        local: listener::endpoint_of_unix(&stream.local_addr()?),
    })
}
