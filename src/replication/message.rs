//! What nodes say to each other, and how it is written.
//!
//! A frame is `u32 length | u8 type | u8 flags | body`, little-endian; the length counts what
//! follows it. Bodies are postcard. A frame is checked before anything of it is believed: one
//! that is too long, of an unknown type that must be understood, or does not decode to its last
//! byte is refused whole. The format is described in `docs/protocol-peer.md`.

use bytes::{Buf, Bytes};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::dialect::Dialect;
use super::nodes::Roster;
use super::view::{Incarnation, Line, View};
use crate::chunk::Chunk;
use crate::record::{Digest, Mutation, Outcome, Record};
use crate::time::Millis;
use crate::version::{Epoch, Version};

/// Bytes before the body.
pub const HEADER: usize = 6;

/// The receiver may skip a frame of a type that it does not know.
const MAY_SKIP: u8 = 1;

/// The first message on a connection, from the side that dialed. It has the same form in all versions:
/// what both sides speak is only known after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it speaks.
    pub speaks: Dialect,
    /// The name of the group; nodes of another are refused.
    pub cluster: Box<str>,
    /// Who is speaking.
    pub name: Box<str>,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The nodes of its group, as far as it knows. Before there is one, the names must be equal on
    /// both sides.
    pub roster: Roster,
    /// Bytes of the largest item it takes; must be equal within a group.
    pub item_max: u64,
    /// Former lives of it that are certainly over, as its state directory tells.
    pub succeeds: Vec<Incarnation>,
    /// It only votes, and holds no data.
    pub is_witness: bool,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// The two kinds of connections, so that beats never wait behind items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Beats, views and the log: lost with the connection.
    Control,
    /// Messages about lanes, which survive it. In `Hello` the dialer's session, and how much of it
    /// is known to have come over; in `HelloOk` the same session, and how much really has.
    Data(Received),
    /// As `Control`, with a life that was started beside another one of its node.
    ControlBeside(Beside),
    /// As `Data`, with such a life.
    DataBeside(Beside, Received),
}

/// How a life stands that was started beside another one of its node, as long as that one lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// The other one.
    pub predecessor: Incarnation,
    /// Where it is to be dialed meanwhile, at the address of its node.
    pub port: u16,
}

impl Purpose {
    /// The same, said by or to a life that stands so.
    #[must_use]
    pub fn of(self, beside: Option<Beside>) -> Self {
        match (beside, self.position()) {
            (None, None) => Self::Control,
            (None, Some(position)) => Self::Data(position),
            (Some(beside), None) => Self::ControlBeside(beside),
            (Some(beside), Some(position)) => Self::DataBeside(beside, position),
        }
    }

    /// How the speaker stands, if it was started beside another life.
    pub fn beside(self) -> Option<Beside> {
        match self {
            Self::Control | Self::Data(_) => None,
            Self::ControlBeside(beside) | Self::DataBeside(beside, _) => Some(beside),
        }
    }

    /// Where the session stands, on a connection for data.
    pub fn position(self) -> Option<Received> {
        match self {
            Self::Control | Self::ControlBeside(_) => None,
            Self::Data(position) | Self::DataBeside(_, position) => Some(position),
        }
    }
}

/// So many messages of a session have come over: what `link.rs` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Which session of the sender of those messages.
    pub session: u64,
    /// All up to this one.
    pub up_to: u64,
}

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See `Hello`.
    Hello(Hello),
    /// The answer: who was reached.
    HelloOk(Hello),
    /// The answer: why not. The connection is closed.
    Refuse(Box<str>),
    /// I am alive.
    Beat(Beat),
    /// The newest view the sender knows.
    View(Box<View>),
    /// For the log of views; what is in it, only the log knows.
    Log(Bytes),
    /// So much of your session has come over.
    Received(Received),
    /// Before a `Hello`, where a secret is shared: a number that makes this connection unlike others.
    Challenge(Nonce),
    /// After a `Hello` or `HelloOk`: that its sender knows the secret.
    Proof(Proof),
    /// About one lane.
    Lane(u8, Epoch, LaneMessage),
}

/// A message as it goes over a connection: what `encode` makes of it. Copies share its bytes, whoever
/// they go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet(pub Bytes);

impl Packet {
    /// That message, ready to be sent, in a chunk with others.
    pub fn of(message: &Message, chunk: &mut Chunk) -> Self {
        Self(chunk.write(|out| encode(message, out)))
    }
}

/// A random number that is used once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 32]);

/// What only somebody who knows the secret can make of what was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof(pub [u8; 32]);

/// Sent all the time, so that silence means something; also says what the others have to know of
/// the sender, again and again, so that nothing of it needs to be sure to arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// By the sender's clock.
    pub sent: Millis,
    /// `sent` of the last beat that came from the receiver.
    pub echo: Option<Millis>,
    /// How long ago that was.
    pub echo_age_ms: u64,
    /// The sender's cluster time.
    pub cluster: Millis,
    /// The line and the epoch of the newest view the sender knows.
    pub view: (Line, Epoch),
    /// All its lanes work in this view or a later one.
    pub active: Epoch,
    /// The receiver is promised that the sender takes part in no view without it for a while.
    pub grants: bool,
    /// Whom the sender hears and is heard by.
    pub up: Vec<Incarnation>,
    /// The learners that the sender has filled in that view.
    pub filled: Vec<Incarnation>,
    /// What its clients want flushed.
    pub flushes: Vec<FlushAll>,
    /// The log counts this life of the sender among its voters.
    pub is_seated: bool,
    /// The sender wants a view without it.
    pub leaving: bool,
}

/// A flush_all of a client of the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushAll {
    /// The sender's number for it, counted up from 1.
    pub id: u64,
    /// When, in cluster time; at once without it.
    pub at: Option<Millis>,
}

/// A message about one lane, within one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneMessage {
    /// Origin to owner: decide this.
    Fwd(Fwd),
    /// Owner to origin: decided, and done everywhere.
    FwdDone(FwdDone),
    /// Origin to another member, and that one to the owner: as `Fwd`, for an owner whom this origin
    /// does not reach.
    PassFwd(Incarnation, Fwd),
    /// Owner to that member, and that one to this origin: as `FwdDone`.
    PassDone(Incarnation, FwdDone),
    /// Owner to all: the next record of my stream.
    Apply(Apply),
    /// Receiver to owner: applied up to this position of your stream.
    AppliedUpTo(u64),
    /// Owner to all: everybody has applied up to this position of my stream.
    CommitUpTo(u64),
    /// To all members of the new view: what I can't rule out that others lack.
    ViewFlush(ViewFlush),
    /// To all members of the new view: I have all flushes and go on.
    Activated,
    /// Owner to learner: what my slots hold at this place of my stream, in their order.
    SnapDigests(Vec<Digest>),
    /// Learner to owner: in these of your slots I differ; what I had there is gone.
    SnapWant(Vec<u16>),
    /// Owner to learner: some items of those slots.
    SnapChunk(Vec<Record<Bytes>>),
    /// Owner to learner: that was all, and these requests are decided.
    SnapEnd(Vec<Answered>),
    /// Learner to owner: one chunk, or the end, is in.
    SnapAck,
    /// Member to owner: these versions of your items had to go here.
    Lost(Vec<(Bytes, Version)>),
    /// Member to owner: these items of yours are in use here.
    Bump(Vec<Bytes>),
}

/// A request, named so that deciding it twice can be avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId {
    /// The node whose client asked.
    pub origin: Incarnation,
    /// That node's count, per lane, from 1.
    pub counter: u64,
}

/// See `LaneMessage::Fwd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fwd<B = Bytes> {
    /// The origin's count.
    pub counter: u64,
    /// The origin has answers to all requests up to this one.
    pub done_up_to: u64,
    /// In cluster time: nobody waits for it from then on, and it must not be carried out any more.
    /// `None`: that is not known, where not all nodes of the group can say it.
    #[serde(skip)]
    pub until: Option<Millis>,
    /// 1 to 250 bytes.
    pub key: B,
    /// What is wanted.
    pub mutation: Mutation<B>,
}

impl<B> Fwd<B> {
    /// The same over other bytes.
    pub fn map<'a, C>(&'a self, mut convert: impl FnMut(&'a B) -> C) -> Fwd<C> {
        let Self { counter, done_up_to, until, ref key, ref mutation } = *self;
        Fwd { counter, done_up_to, until, key: convert(key), mutation: mutation.map(convert) }
    }
}

/// See `LaneMessage::FwdDone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwdDone {
    /// The origin's count.
    pub counter: u64,
    /// The owner's decision.
    pub outcome: Outcome,
}

/// See `LaneMessage::Apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply<B = Bytes> {
    /// Dense, from 1, per owner, lane and epoch.
    pub position: u64,
    /// As `CommitUpTo`.
    pub committed: u64,
    /// The new state.
    pub record: Record<B>,
    /// Which forwarded request this answers.
    pub answered: Option<Answered>,
}

impl<B> Apply<B> {
    /// The same over other bytes.
    pub fn map<C>(self, convert: impl FnMut(&B) -> C) -> Apply<C> {
        let Self { position, committed, record, answered } = self;
        Apply { position, committed, record: record.map(convert), answered }
    }
}

/// A forwarded request and its outcome, remembered by all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The request.
    pub request: RequestId,
    /// Its origin has answers to all requests up to this one.
    pub done_up_to: u64,
    /// The owner's decision.
    pub outcome: Outcome,
}

/// See `LaneMessage::ViewFlush`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewFlush {
    /// Whole items, or deletes.
    pub records: Vec<Record<Bytes>>,
    /// The requests that led to them.
    pub answered: Vec<Answered>,
    /// Whether no further part follows: a frame has a largest length.
    pub last: bool,
}

impl ViewFlush {
    /// Cuts it into parts of about `bytes` each.
    pub(super) fn into_parts(self, bytes: usize) -> Vec<Self> {
        let mut parts = vec![Self { answered: self.answered, ..Self::default() }];
        let mut size = 0;
        for record in self.records {
            if size >= bytes {
                parts.push(Self::default());
                size = 0;
            }
            size += record.size();
            if let Some(part) = parts.last_mut() {
                part.records.push(record);
            }
        }
        if let Some(part) = parts.last_mut() {
            part.last = true;
        }
        parts
    }
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Longer than any message may be here.
    TooLong(usize),
    /// Of a type that this version does not know and may not skip.
    UnknownType(u8),
    /// The body is not what its type says.
    Body(u8),
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(length) => write!(f, "frame of {length} bytes is too long"),
            Self::UnknownType(kind) => write!(f, "frame of unknown type {kind}"),
            Self::Body(kind) => write!(f, "frame of type {kind} does not decode"),
        }
    }
}

/// What the start of a buffer holds.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// A message, and the bytes that it took.
    Message(usize, Message),
    /// Something that may be skipped.
    Skip(usize),
    /// Not all of it is here.
    Incomplete,
}

/// Every lane message has the lane and the epoch in front of its body.
type InLane<T> = (u8, Epoch, T);

/// Appends the frame of a message.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(body) => frame(1, body, out),
        Message::HelloOk(body) => frame(2, body, out),
        Message::Refuse(body) => frame(3, body, out),
        Message::Beat(body) => frame(4, body, out),
        Message::View(body) => frame(5, body, out),
        Message::Log(body) => frame(6, body, out),
        Message::Received(body) => frame(7, body, out),
        Message::Challenge(body) => frame(8, body, out),
        Message::Proof(body) => frame(9, body, out),
        Message::Lane(lane, epoch, message) => encode_lane(*lane, *epoch, message, out),
    }
}

fn encode_lane(lane: u8, epoch: Epoch, message: &LaneMessage, out: &mut Vec<u8>) {
    match message {
        LaneMessage::Fwd(body) => match body.until {
            None => frame(32, &(lane, epoch, body), out),
            Some(until) => frame(46, &(lane, epoch, (until, body)), out),
        },
        LaneMessage::FwdDone(body) => frame(33, &(lane, epoch, body), out),
        LaneMessage::PassFwd(origin, body) => {
            frame(47, &(lane, epoch, (origin, body.until, body)), out)
        }
        LaneMessage::PassDone(origin, body) => frame(48, &(lane, epoch, (origin, body)), out),
        LaneMessage::Apply(body) => frame(34, &(lane, epoch, body), out),
        LaneMessage::AppliedUpTo(body) => frame(35, &(lane, epoch, body), out),
        LaneMessage::CommitUpTo(body) => frame(36, &(lane, epoch, body), out),
        LaneMessage::ViewFlush(body) => frame(37, &(lane, epoch, body), out),
        LaneMessage::Activated => frame(38, &(lane, epoch, ()), out),
        LaneMessage::SnapChunk(body) => frame(39, &(lane, epoch, body), out),
        LaneMessage::SnapEnd(body) => frame(40, &(lane, epoch, body), out),
        LaneMessage::SnapAck => frame(41, &(lane, epoch, ()), out),
        LaneMessage::Lost(body) => frame(42, &(lane, epoch, body), out),
        LaneMessage::Bump(body) => frame(43, &(lane, epoch, body), out),
        LaneMessage::SnapDigests(body) => frame(44, &(lane, epoch, body), out),
        LaneMessage::SnapWant(body) => frame(45, &(lane, epoch, body), out),
    }
}

fn frame<T: Serialize>(kind: u8, body: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind, 0]);
    let written = postcard::serialize_with_flavor(body, Behind(out));
    written.expect("writing to a Vec can't fail, and our types know their lengths");
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Writes behind what is there. Postcard's own way takes values byte by byte.
struct Behind<'a>(&'a mut Vec<u8>);

impl Flavor for Behind<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// How many bytes at the start of `input` are whole frames; none may be longer than `length_max`.
pub fn whole_frames(input: &[u8], length_max: usize) -> Result<usize, BadFrame> {
    let mut whole = 0;
    while let Some(length) = frame_length(&input[whole..], length_max)? {
        whole += length;
    }
    Ok(whole)
}

/// The length of the frame at the start of `input`, if it is all there.
fn frame_length(input: &[u8], length_max: usize) -> Result<Option<usize>, BadFrame> {
    let Some(&header) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(header) as usize;
    if !(2..=length_max).contains(&length) {
        return Err(BadFrame::TooLong(length));
    }
    Ok((input.len() - 4 >= length).then_some(length + 4))
}

/// Reads the frame at the start of `input`; none may be longer than `length_max`.
pub fn decode(input: &[u8], length_max: usize) -> Result<Frame, BadFrame> {
    decode_with(input, length_max, &|bytes| Bytes::copy_from_slice(bytes))
}

/// The same, and takes it off. Keys and values of requests and records stay where they are.
pub fn decode_first(received: &mut Bytes, length_max: usize) -> Result<Frame, BadFrame> {
    let frame = decode_with(received, length_max, &|bytes| received.slice_ref(bytes))?;
    if let Frame::Message(length, _) | Frame::Skip(length) = frame {
        received.advance(length);
    }
    Ok(frame)
}

/// Makes bytes of a message last.
type Keep<'a> = &'a dyn Fn(&[u8]) -> Bytes;

fn decode_with(input: &[u8], length_max: usize, keep: Keep<'_>) -> Result<Frame, BadFrame> {
    let Some(length) = frame_length(input, length_max)? else {
        return Ok(Frame::Incomplete);
    };
    let (kind, flags, body) = (input[4], input[5], &input[HEADER..length]);
    match decode_body(kind, body, keep) {
        Some(Some(message)) => Ok(Frame::Message(length, message)),
        Some(None) => Err(BadFrame::Body(kind)),
        None if flags & MAY_SKIP != 0 => Ok(Frame::Skip(length)),
        None => Err(BadFrame::UnknownType(kind)),
    }
}

/// The outer `None`: an unknown type. The inner: a body that is not of its type.
fn decode_body(kind: u8, body: &[u8], keep: Keep<'_>) -> Option<Option<Message>> {
    Some(match kind {
        1 => parse(body).map(Message::Hello),
        2 => parse(body).map(Message::HelloOk),
        3 => parse(body).map(Message::Refuse),
        4 => parse(body).map(Message::Beat),
        5 => parse(body).map(Message::View),
        6 => parse(body).map(Message::Log),
        7 => parse(body).map(Message::Received),
        8 => parse(body).map(Message::Challenge),
        9 => parse(body).map(Message::Proof),
        32 => in_lane(body, |fwd: Fwd<_>| LaneMessage::Fwd(owned_fwd(&fwd, keep))),
        33 => in_lane(body, LaneMessage::FwdDone),
        34 => {
            in_lane(body, |apply: Apply<&[u8]>| LaneMessage::Apply(apply.map(|bytes| keep(bytes))))
        }
        35 => in_lane(body, LaneMessage::AppliedUpTo),
        36 => in_lane(body, LaneMessage::CommitUpTo),
        37 => in_lane(body, LaneMessage::ViewFlush),
        38 => in_lane(body, |()| LaneMessage::Activated),
        39 => in_lane(body, LaneMessage::SnapChunk),
        40 => in_lane(body, LaneMessage::SnapEnd),
        41 => in_lane(body, |()| LaneMessage::SnapAck),
        42 => in_lane(body, LaneMessage::Lost),
        43 => in_lane(body, LaneMessage::Bump),
        44 => in_lane(body, LaneMessage::SnapDigests),
        45 => in_lane(body, LaneMessage::SnapWant),
        46 => in_lane(body, |(until, fwd): (_, Fwd<_>)| {
            LaneMessage::Fwd(Fwd { until: Some(until), ..owned_fwd(&fwd, keep) })
        }),
        47 => in_lane(body, |(origin, until, fwd): (_, _, Fwd<_>)| {
            LaneMessage::PassFwd(origin, Fwd { until, ..owned_fwd(&fwd, keep) })
        }),
        48 => in_lane(body, |(origin, done)| LaneMessage::PassDone(origin, done)),
        _ => return None,
    })
}

fn owned_fwd(fwd: &Fwd<&[u8]>, keep: Keep<'_>) -> Fwd {
    fwd.map(|bytes| keep(bytes))
}

fn in_lane<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    make: impl FnOnce(T) -> LaneMessage,
) -> Option<Message> {
    let (lane, epoch, body): InLane<T> = parse(body)?;
    (usize::from(lane) < crate::key::LANES).then(|| Message::Lane(lane, epoch, make(body)))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// A view as the log of views keeps it.
pub fn encode_view(view: &View) -> Bytes {
    let written = postcard::to_stdvec(view);
    written.expect("writing to a Vec can't fail, and our types know their lengths").into()
}

/// `None`: these bytes are no view.
pub fn decode_view(bytes: &[u8]) -> Option<View> {
    parse(bytes)
}

/// Whether a decoded record can be one at all, in that epoch.
pub(super) fn is_sane(record: &Record<Bytes>, epoch: Epoch) -> bool {
    crate::key::Key::new(&record.key).is_some() && is_given(record.version, epoch)
}

/// Whether somebody may have given that version by then: no later epoch has given any. The highest
/// of all could be followed by none.
pub(super) fn is_given(version: Version, epoch: Epoch) -> bool {
    version > Version::default() && version.epoch() <= epoch
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Change, Direction, Fetched, Marks, Sight, StoreMode, Terms};
    use crate::replication::{Features, Member, Nodes, Place};
    use crate::time::Deadline;
    use crate::version::Versions;

    fn nodes() -> Nodes {
        let place =
            |votes, is_given| Place { address: ([10, 0, 0, 1], 11212).into(), votes, is_given };
        [("web1".into(), place(true, false)), ("web2".into(), place(false, true))].into()
    }

    fn hello(purpose: Purpose) -> Hello {
        Hello {
            speaks: Dialect::default(),
            cluster: "web".into(),
            name: "web1".into(),
            incarnation: Incarnation(u64::MAX),
            roster: Roster { as_of: (Line { number: 1, random: 2 }, Epoch(300)), nodes: nodes() },
            item_max: 1 << 20,
            succeeds: vec![Incarnation(4)],
            is_witness: false,
            purpose,
        }
    }

    /// Each kind of what a command can want, and of what comes of it, beside those in `samples`.
    fn requests() -> Vec<Message> {
        let deadline = Deadline::from_raw(1000);
        let terms = Terms {
            compare: None,
            cas: Some(7),
            vivify: Some(deadline),
            touch: Some(deadline),
            is_stale: true,
            has_binary_key: true,
        };
        let value = Bytes::from_static(b"v");
        let modes = [StoreMode::Add, StoreMode::Replace, StoreMode::Append, StoreMode::Prepend];
        let store =
            |mode| Mutation::Store { mode, flags: 300, deadline, terms, value: value.clone() };
        let count = |direction| Mutation::Count { direction, delta: 1, initial: 300, terms };
        let mut wanted: Vec<_> = modes.into_iter().map(store).collect();
        wanted.extend([
            Mutation::Delete { terms, empty: Some(1) },
            count(Direction::Up),
            count(Direction::Down),
            Mutation::Touch { deadline },
            Mutation::Fetch { terms, recache: deadline },
            Mutation::Read,
        ]);
        let sight =
            Sight { cas: 7, flags: 1, deadline, wins: true, idle_s: 300, ..Sight::default() };
        let outcomes = [
            Outcome::Exists,
            Outcome::NotFound,
            Outcome::Deleted,
            Outcome::Touched,
            Outcome::Number { value: 300, cas: 7, deadline },
            Outcome::Item(Box::new(Fetched { sight, value: value.clone() })),
            Outcome::Flushed,
            Outcome::NotNumeric,
            Outcome::NoMemory,
        ];
        let key = Bytes::from_static(b"key");
        let asked = wanted.into_iter().map(|mutation| {
            let (until, key) = (None, key.clone());
            LaneMessage::Fwd(Fwd { counter: 300, done_up_to: 0, until, key, mutation })
        });
        let answered =
            outcomes.map(|outcome| LaneMessage::FwdDone(FwdDone { counter: 300, outcome }));
        let changes = [
            Change::Meta { cas: 7, deadline, marks: Marks { is_won: true, ..Marks::default() } },
            Change::Delete,
        ];
        let items = changes.map(|change| {
            let record = Record { key: key.clone(), version: Version::from_raw(300), change };
            LaneMessage::SnapChunk(vec![record])
        });
        let all = asked.chain(answered).chain(items);
        all.map(|message| Message::Lane(0, Epoch(300), message)).collect()
    }

    fn view() -> View {
        let member =
            |name: &str, life| Member { name: name.into(), incarnation: Incarnation(life) };
        View {
            epoch: Epoch(300),
            follows: Epoch(299),
            line: Line { number: 1, random: 2 },
            generation: Epoch(200),
            nodes: nodes(),
            members: vec![member("web1", 1), member("web2", 2)],
            learners: vec![member("web3", 3)],
            absent: vec![member("web4", 4)],
            dead: vec![Incarnation(5)],
            unsettled: vec![vec![Incarnation(1), Incarnation(6)]],
            floor: Version::from_raw(300),
            flush_at: Some(Millis(1000)),
            flushed: [(Incarnation(1), 8)].into(),
            cause: "web4 silent".into(),
            features: Features(5),
        }
    }

    fn samples() -> Vec<Message> {
        let record = Record {
            key: Bytes::from_static(b"key"),
            version: Versions::new(Epoch(3), 9).next(None),
            change: Change::Put {
                cas: 7,
                flags: 1,
                deadline: Deadline::NEVER,
                marks: Marks { is_stale: true, ..Marks::default() },
                value: Bytes::from_static(b"value\r\n"),
            },
        };
        let request = RequestId { origin: Incarnation(u64::MAX), counter: 4 };
        let answered = Answered { request, done_up_to: 3, outcome: Outcome::NotStored };
        let mutation = Mutation::Store {
            mode: StoreMode::Set,
            flags: 0,
            deadline: Deadline::NEVER,
            terms: Terms { compare: Some(6), ..Terms::default() },
            value: Bytes::from_static(b"v"),
        };
        let lane = |message| Message::Lane(15, Epoch(3), message);
        let data = Purpose::Data(Received { session: 300, up_to: 5 });
        let beside = Some(Beside { predecessor: Incarnation(4), port: 40_000 });
        vec![
            Message::Hello(hello(Purpose::Control)),
            Message::HelloOk(hello(data)),
            Message::Hello(hello(Purpose::Control.of(beside))),
            Message::HelloOk(hello(data.of(beside))),
            Message::Refuse("another group".into()),
            Message::Challenge(Nonce([7; 32])),
            Message::Proof(Proof([8; 32])),
            Message::Received(Received { session: 7, up_to: u64::MAX }),
            Message::View(Box::new(view())),
            Message::Log(Bytes::from_static(b"frame")),
            Message::Beat(Beat {
                sent: Millis(7),
                echo: Some(Millis(6)),
                echo_age_ms: 1,
                cluster: Millis(5),
                view: (Line { number: 1, random: 2 }, Epoch(3)),
                active: Epoch(2),
                grants: true,
                up: vec![Incarnation(4)],
                filled: vec![Incarnation(5)],
                flushes: vec![FlushAll { id: 9, at: None }],
                is_seated: true,
                leaving: true,
            }),
            lane(LaneMessage::Fwd(Fwd {
                counter: 4,
                done_up_to: 3,
                until: Some(Millis(1_800_000_030_000)),
                key: record.key.clone(),
                mutation,
            })),
            lane(LaneMessage::Apply(Apply {
                position: 1,
                committed: 0,
                record: record.clone(),
                answered: Some(answered.clone()),
            })),
            lane(LaneMessage::FwdDone(FwdDone {
                counter: 4,
                outcome: Outcome::Stored { cas: 7, size: 9 },
            })),
            lane(LaneMessage::PassFwd(
                Incarnation(300),
                Fwd {
                    counter: 4,
                    until: Some(Millis(1_800_000_030_000)),
                    done_up_to: 3,
                    key: record.key.clone(),
                    mutation: Mutation::Read,
                },
            )),
            lane(LaneMessage::PassDone(
                Incarnation(300),
                FwdDone { counter: 4, outcome: Outcome::NotFound },
            )),
            lane(LaneMessage::AppliedUpTo(u64::MAX)),
            lane(LaneMessage::CommitUpTo(300)),
            lane(LaneMessage::Activated),
            lane(LaneMessage::SnapEnd(vec![answered.clone()])),
            lane(LaneMessage::SnapAck),
            lane(LaneMessage::Lost(vec![(record.key.clone(), record.version)])),
            lane(LaneMessage::Bump(vec![record.key.clone()])),
            lane(LaneMessage::SnapDigests(vec![
                Digest { items: 3, sum: u64::MAX },
                Digest::default(),
            ])),
            lane(LaneMessage::SnapWant(vec![0, 4095])),
            lane(LaneMessage::SnapChunk(vec![record.clone(), record.clone()])),
            lane(LaneMessage::ViewFlush(ViewFlush {
                records: vec![record],
                answered: vec![answered],
                last: true,
            })),
        ]
    }

    #[test]
    fn a_message_survives_the_wire_in_pieces() {
        let (mut wire, mut seen) = (Vec::new(), Vec::new());
        samples().iter().for_each(|message| encode(message, &mut wire));
        let mut buffer = Vec::new();
        for byte in wire {
            buffer.push(byte);
            match decode(&buffer, 1 << 20).unwrap() {
                Frame::Message(used, message) => {
                    assert_eq!(used, buffer.len());
                    seen.push(message);
                    buffer.clear();
                }
                other => assert_eq!(other, Frame::Incomplete),
            }
        }
        assert_eq!(seen, samples());
    }

    /// One a line: the frame, and what it means. What is recorded there must be read for ever.
    const RECORDED: &str = include_str!("../../tests/frames/protocol-3.txt");

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
    }

    #[test]
    fn recorded_frames_mean_what_they_did() {
        for line in RECORDED.lines() {
            let (hex, meaning) = line.split_once(' ').unwrap();
            match decode(&bytes(hex), 1 << 20) {
                Ok(Frame::Message(_, message)) => assert_eq!(format!("{message:?}"), meaning),
                other => panic!("{other:?}: {line}"),
            }
        }
    }

    #[test]
    fn every_message_is_recorded() {
        let mut missing = String::new();
        for sample in samples().into_iter().chain(requests()) {
            let mut frame = Vec::new();
            encode(&sample, &mut frame);
            let line = format!("{} {sample:?}", hex(&frame));
            if !RECORDED.lines().any(|recorded| recorded == line) {
                missing = missing + &line + "\n";
            }
        }
        assert!(missing.is_empty(), "not in tests/frames:\n{missing}");
        for kind in (1..=9).chain(32..=48) {
            let recorded = |line: &str| line.get(8..10) == Some(&hex(&[kind]));
            assert!(RECORDED.lines().any(recorded), "no frame of type {kind}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_arrives() {
        let header = [255, 255, 255, 255, 34, 0];
        assert_eq!(decode(&header, 1 << 20), Err(BadFrame::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn an_unknown_type_is_refused_unless_it_may_be_skipped() {
        assert_eq!(decode(&[3, 0, 0, 0, 200, 0, 1], 100), Err(BadFrame::UnknownType(200)));
        assert_eq!(decode(&[3, 0, 0, 0, 200, MAY_SKIP, 1], 100), Ok(Frame::Skip(7)));
    }

    #[test]
    fn what_no_version_knows_of_a_hello_refuses_it() {
        let mut wire = Vec::new();
        encode(&Message::Hello(hello(Purpose::Control)), &mut wire);
        assert_eq!(wire.last(), Some(&0), "what it is for comes last");
        *wire.last_mut().unwrap() = 4;
        assert_eq!(decode(&wire, 2048), Err(BadFrame::Body(1)));
    }

    #[test]
    fn bytes_left_over_in_a_body_refuse_it() {
        let mut wire = Vec::new();
        encode(&Message::Received(Received { session: 1, up_to: 2 }), &mut wire);
        wire.push(0);
        wire[0] += 1;
        assert_eq!(decode(&wire, 100), Err(BadFrame::Body(7)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(kind in 0u8..50, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut wire = ((body.len() + 2) as u32).to_le_bytes().to_vec();
            wire.extend_from_slice(&[kind, 0]);
            wire.extend_from_slice(&body);
            let _ = decode(&wire, 1 << 20);
        }
    }
}
