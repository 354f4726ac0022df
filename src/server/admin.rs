//! `--admin-listen`: figures and health over HTTP, for programs that watch this node.
//!
//! On a thread of its own: whoever asks, and however often, holds up neither clients nor beats. It
//! tells, and takes no orders; bodies of requests are not read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, sleep, timeout};

use super::courier::{Links, Waiter};
use super::listener::{self, Sharing};
use super::{StartError, clock, new_runtime};
use crate::exposition::{self, Exposition};
use crate::membership::{Role, Status};
use crate::node::Node;

/// Connections at a time; further ones wait in the kernel's queue. Each carries one request.
const CONNECTIONS_MAX: usize = 16;
const BACKLOG: u32 = 64;
/// A scrape's request has some hundred bytes; less than this hyper does not do.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
/// Between the first byte of a request and the end of its headers.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// From the beginning of a connection to its end, the slowest reader's answer included.
const TALK_MAX: Duration = Duration::from_secs(10);
/// Usually out of file descriptors: trying again at once would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const FIGURES: HeaderValue = HeaderValue::from_static(exposition::CONTENT_TYPE);
const READ_ONLY: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// The address, taken before anything starts.
pub(super) struct Bound {
    address: SocketAddr,
    socket: TcpSocket,
}

/// What there is to tell.
pub(super) struct Sources {
    pub(super) node: Arc<Node<Waiter>>,
    /// Where the log of views stands; a single node has none.
    pub(super) log: Option<watch::Receiver<Status>>,
    /// The node has nothing to tell then: only the log and the links have.
    pub(super) is_witness: bool,
    pub(super) links: Arc<Links>,
}

impl Bound {
    pub(super) fn new(address: SocketAddr) -> Result<Self, StartError> {
        let socket = listener::bind(address, Sharing::No)?;
        Ok(Self { address, socket })
    }

    /// Answers from now on, for ever.
    pub(super) fn start(self, sources: Sources) -> Result<(), StartError> {
        let Self { address, socket } = self;
        let runtime = new_runtime()?;
        let context = runtime.enter();
        let listening = socket.listen(BACKLOG);
        let listener = listening.map_err(|error| StartError::Bind(address, error))?;
        drop(context);
        tracing::info!(%address, "answering /metrics, /healthz and /readyz");
        thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(accept(listener, Arc::new(sources))))
            .map(drop)
            .map_err(|error| StartError::System("start the thread of the figures", error))
    }
}

async fn accept(listener: TcpListener, sources: Arc<Sources>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes the places");
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(talk(stream, place, Arc::clone(&sources)))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept who asks for figures");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One request, one answer. What goes wrong ends the connection and nothing else.
async fn talk(stream: TcpStream, _place: OwnedSemaphorePermit, sources: Arc<Sources>) {
    let answer = |request: Request<Incoming>| {
        let response = sources.answer(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(response) }
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false);
    let talk = http.serve_connection(TokioIo::new(stream), service_fn(answer));
    match timeout(TALK_MAX, talk).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "who asked for figures was not answered"),
        Err(_) => tracing::debug!("who asked for figures took too long"),
    }
}

impl Sources {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let tell = match path {
            "/metrics" => Self::metrics,
            "/healthz" => |_: &Self| line(StatusCode::OK, "ok"),
            "/readyz" => Self::readiness,
            _ => return line(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz"),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut response = line(StatusCode::METHOD_NOT_ALLOWED, "this port only tells: GET");
            response.headers_mut().insert(ALLOW, READ_ONLY);
            return response;
        }
        tell(self)
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let ready = if self.is_witness {
            Err("witness: only votes, and serves no clients".into())
        } else {
            self.node.readiness(clock::now(&self.node))
        };
        match ready {
            Ok(()) => line(StatusCode::OK, "ready"),
            Err(why) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut out = Exposition::default();
        if self.is_witness {
            self.node.metrics_of_witness(&self.links.dialects(), &mut out);
        } else {
            self.node.metrics(clock::now(&self.node), &mut out);
        }
        if let Some(status) = &self.log {
            log(&status.borrow(), &self.node.options().me.name, &mut out);
        }
        response(StatusCode::OK, FIGURES, out.into_text())
    }
}

fn log(status: &Status, me: &str, out: &mut Exposition) {
    let leader = status.leader.as_deref();
    out.gauge("sessiond_log_has_leader", "Whether this node knows who leads the log of views.")
        .value(u8::from(leader.is_some()));
    out.gauge("sessiond_log_is_leader", "Whether it leads itself.")
        .value(u8::from(leader == Some(me) && status.role == Role::Leader));
    out.gauge("sessiond_log_term", "Counts the elections.").value(status.term);
    out.gauge("sessiond_log_voters", "Nodes that vote, as far as known.")
        .value(status.voters.len());
    out.counter("sessiond_log_bad_frames_total", "What peers said of the log and made no sense.")
        .value(status.bad_frames);
}

fn line(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, TEXT, format!("{text}\n"))
}

fn response(status: StatusCode, kind: HeaderValue, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
