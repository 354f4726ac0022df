//! Replays scripts on one kind of server, and tells what went wrong where.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::script::{Connect, Exchange, Expected, Expecting, Script, Step};
use super::server::{Kind, Servers};
use super::text::Captured;

/// A reply that has not come by then won't come.
const REPLY_WAIT: Duration = Duration::from_secs(10);
/// Silence is believed after this time.
const SILENCE: Duration = Duration::from_millis(50);
/// Between two tries of an exchange that is repeated.
const PAUSE: Duration = Duration::from_millis(50);
/// So much of a line is shown.
const SHOWN: usize = 300;

/// Replays the scripts on one server, and returns what failed.
pub(crate) fn all(kind: Kind, flags: &[String], scripts: &[Script]) -> Vec<String> {
    let servers = match Servers::start(kind, flags) {
        Ok(servers) => servers,
        Err(error) => {
            let failed = |script: &Script| {
                format!("tests/wire/{}.txt on {kind}: no server: {error}\n", script.name)
            };
            return scripts.iter().map(failed).collect();
        }
    };
    scripts
        .iter()
        .filter_map(|script| {
            let mut replay = Replay::new(&servers);
            let failed = replay.run(script).err()?;
            Some(
                format!("tests/wire/{}.txt{failed}", script.name)
                    .replace("{kind}", &kind.to_string()),
            )
        })
        .collect()
}

/// One script on its way.
struct Replay<'a> {
    servers: &'a Servers,
    connections: BTreeMap<String, Connection>,
    current: String,
    captured: Captured,
}

/// The name of the connection to node 2.
const OTHER_NODE: &str = "other node";

impl<'a> Replay<'a> {
    fn new(servers: &'a Servers) -> Self {
        let current = "first".to_owned();
        Self { servers, connections: BTreeMap::new(), current, captured: Captured::new() }
    }

    fn run(&mut self, script: &Script) -> Result<(), String> {
        for step in &script.steps {
            match step {
                Step::Connect(connect) => self
                    .connect(connect)
                    .map_err(|error| format!(" on {{kind}}: cannot connect: {error}\n"))?,
                Step::Exchange(exchange) => self.exchange(exchange)?,
            }
        }
        // The others may have been sent away, or watch.
        if let Some(connection) = self.connections.get_mut(&self.current)
            && let Ok(Some(line)) = connection.line(Instant::now())
        {
            return Err(format!(" on {{kind}}: after its end came {}\n", shown(&line)));
        }
        Ok(())
    }

    fn connect(&mut self, connect: &Connect) -> Result<(), String> {
        self.current = match connect {
            Connect::New if self.current == OTHER_NODE => "first".to_owned(),
            Connect::New => std::mem::take(&mut self.current),
            Connect::Named(name) => name.clone(),
            Connect::OtherNode => OTHER_NODE.to_owned(),
        };
        if matches!(connect, Connect::New) {
            self.connections.remove(&self.current);
        }
        self.connection().map(|_| ())
    }

    fn connection(&mut self) -> Result<&mut Connection, String> {
        if !self.connections.contains_key(&self.current) {
            let other = self.current == OTHER_NODE;
            let address = if other { self.servers.other } else { self.servers.first };
            self.connections.insert(self.current.clone(), Connection::open(address)?);
        }
        self.connections.get_mut(&self.current).ok_or("no connection".into())
    }

    fn exchange(&mut self, exchange: &Exchange) -> Result<(), String> {
        let deadline = exchange.within.map(|within| Instant::now() + within);
        loop {
            let result = self.attempt(exchange);
            match (result, deadline) {
                (Err(_), Some(deadline)) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                    // What is left of the other answer must not be read as part of the next.
                    self.connections.remove(&self.current);
                }
                (result, _) => return result.map_err(|failed| failed.told(exchange)),
            }
        }
    }

    fn attempt(&mut self, exchange: &Exchange) -> Result<(), Failed> {
        let mut captured = self.captured.clone();
        let expecting = self.servers.expecting.clone();
        let mut answers: Vec<(usize, Expected)> = Vec::new();
        for answer in &exchange.answers {
            for expected in answer.expected(&expecting) {
                answers.push((answer.line, expected));
            }
        }
        let at = |line, expected: &str, got: String| Failed {
            line,
            expected: expected.to_owned(),
            got,
            servers: expecting.clone(),
        };
        let connection =
            self.connection().map_err(|error| at(exchange.line, "a connection", error))?;
        let mut bytes = Vec::new();
        for text in &exchange.sent {
            let more = text
                .bytes(&captured)
                .map_err(|error| at(exchange.line, "something to send", error))?;
            bytes.extend(more);
        }
        // The server may close before it has read everything; what it said tells more than that.
        let _ = connection.stream.write_all(&bytes);
        let mut skipping = false;
        for (line, expected) in &answers {
            if matches!(expected, Expected::Skip) {
                skipping = true;
                continue;
            }
            loop {
                match connection.expect(expected, &mut captured) {
                    Ok(()) => break,
                    Err(Got::Line(_)) if skipping => {}
                    Err(got) => return Err(at(*line, &expected.to_string(), got.to_string())),
                }
            }
            skipping = false;
        }
        self.captured = captured;
        Ok(())
    }
}

/// Where an exchange went wrong.
struct Failed {
    line: usize,
    expected: String,
    got: String,
    servers: Expecting,
}

impl Failed {
    fn told(self, exchange: &Exchange) -> String {
        let Self { line, expected, got, servers } = self;
        let who = match servers {
            Expecting::Stock(release) => format!(" ({release})"),
            Expecting::Sessiond => String::new(),
        };
        let sent: Vec<String> =
            exchange.source.iter().map(|line| format!("    sent      {line:.SHOWN$}\n")).collect();
        format!(
            ":{line} on {{kind}}{who}\n{}    expected  {expected:.SHOWN$}\n    got       {got}\n",
            sent.concat()
        )
    }
}

/// What came instead.
enum Got {
    Line(Vec<u8>),
    Bytes(Vec<u8>),
    Silence,
    Closed,
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(f, "< {}", shown(line)),
            Self::Bytes(bytes) => write!(f, "<< {}", shown(bytes)),
            Self::Silence => write!(f, "nothing"),
            Self::Closed => write!(f, "= closed"),
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let line = bytes.strip_suffix(b"\r\n").unwrap_or(bytes);
    line[..line.len().min(SHOWN)].escape_ascii().to_string()
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self, String> {
        let open = || {
            let stream = TcpStream::connect_timeout(&address, REPLY_WAIT)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(REPLY_WAIT))?;
            Ok(Self { stream, received: Vec::new() })
        };
        open().map_err(|error: std::io::Error| error.to_string())
    }

    fn expect(&mut self, expected: &Expected, captured: &mut Captured) -> Result<(), Got> {
        let deadline = Instant::now() + REPLY_WAIT;
        match expected {
            Expected::Line(_, text) => {
                let mut got = Vec::new();
                for _ in 0..text.line_ends() {
                    match self.line(deadline) {
                        Ok(Some(line)) => got.extend(line),
                        Ok(None) if got.is_empty() => return Err(Got::Silence),
                        Err(Ended) if got.is_empty() => return Err(Got::Closed),
                        _ => break,
                    }
                }
                if text.matches(&got, captured) { Ok(()) } else { Err(Got::Line(got)) }
            }
            Expected::Bytes(_, text) => {
                let length = text.fixed_length().unwrap_or_default();
                while self.received.len() < length && self.more(deadline).is_ok_and(|more| more) {}
                let got: Vec<u8> = self.received.drain(..length.min(self.received.len())).collect();
                if text.matches(&got, captured) { Ok(()) } else { Err(Got::Bytes(got)) }
            }
            Expected::Closed => self.silence(deadline, Err(Got::Silence), Ok(())),
            Expected::Open => self.silence(Instant::now() + SILENCE, Ok(()), Err(Got::Closed)),
            Expected::Skip | Expected::Nothing => Ok(()),
        }
    }

    /// Nothing more may come.
    fn silence(
        &mut self,
        deadline: Instant,
        open: Result<(), Got>,
        closed: Result<(), Got>,
    ) -> Result<(), Got> {
        loop {
            if !self.received.is_empty() {
                return Err(Got::Bytes(std::mem::take(&mut self.received)));
            }
            match self.more(deadline) {
                Ok(true) => {}
                Ok(false) => return open,
                Err(Ended) => return closed,
            }
        }
    }

    /// The next line with its end; `None` when none has come in time.
    fn line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Ended> {
        let mut searched = 0;
        loop {
            let end = self.received[searched..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                return Ok(Some(self.received.drain(..=searched + end).collect()));
            }
            searched = self.received.len();
            if !self.more(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Whether more has come in time.
    fn more(&mut self, deadline: Instant) -> Result<bool, Ended> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero would mean forever.
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).map_err(|_| Ended)?;
        let mut buffer = [0; 1 << 16];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Ended),
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(Ended),
        }
    }
}

/// The server has closed the connection, or reset it.
struct Ended;
