//! No request allocates once its connection has its buffers and its store is full or holds still.
//!
//! A binary of its own: the allocator that counts is that of the whole program. It counts by
//! thread, so that the tests may run side by side.

mod alone;

use allocation_counter::measure;
use sessiond::node::{Node, Session, Step};
use sessiond::settings::Settings;
use sessiond::time::Now;

use alone::Alone;

/// Items of the node; each round asks for all of them.
const KEYS: usize = 1000;

/// A node of its own, and a session on it.
struct Single {
    node: Node<()>,
    session: Session,
    now: Now,
    out: Vec<u8>,
}

impl Single {
    fn new(memory: usize) -> Self {
        let (node, now) = alone::node(1, Settings { memory, ..Settings::default() });
        Self { node, session: Session::new(0, 1 << 20), now, out: Vec::with_capacity(1 << 20) }
    }

    /// The last piece of the replies to whole commands.
    fn says(&mut self, input: &[u8]) -> &[u8] {
        let Self { node, session, now, out, .. } = self;
        out.clear();
        let mut used = 0;
        while used < input.len() {
            let (taken, step) =
                session.advance(node, &input[used..], *now, out, &mut Alone::default());
            used += taken;
            match step {
                // A long reply leaves in several writes.
                Step::Write => out.clear(),
                _ => assert!(matches!(step, Step::Read(_) | Step::Yield), "the input is whole"),
            }
        }
        out
    }
}

fn key(n: usize) -> String {
    format!("session:{n:024}")
}

fn set(n: usize, length: usize) -> Vec<u8> {
    let mut command = format!("set {} 1 3600 {length}\r\n", key(n)).into_bytes();
    command.resize(command.len() + length, b'x');
    command.extend_from_slice(b"\r\n");
    command
}

/// A node with `KEYS` items.
fn filled(length: usize) -> Single {
    let mut single = Single::new(64 << 20);
    (0..KEYS).for_each(|n| assert_eq!(single.says(&set(n, length)), b"STORED\r\n"));
    single
}

/// Allocations of all commands together, once they have all been given before.
fn counted(single: &mut Single, commands: &[Vec<u8>], start: &[u8]) -> u64 {
    let round = |single: &mut Single| {
        for command in commands {
            assert!(single.says(command).starts_with(start));
        }
    };
    round(single);
    measure(|| round(single)).count_total
}

/// A value in one chunk, one in two or more, and one in many.
const LENGTHS: [usize; 3] = [100, 4 << 10, 40 << 10];

#[test]
fn a_get_allocates_nothing() {
    for length in LENGTHS {
        let mut single = filled(length);
        let gets: Vec<_> = (0..KEYS).map(|n| format!("get {}\r\n", key(n)).into()).collect();
        assert_eq!(counted(&mut single, &gets, b"VALUE"), 0, "get of {length}");
        let gets: Vec<_> = (0..KEYS).map(|n| format!("gets {}\r\n", key(n)).into()).collect();
        assert_eq!(counted(&mut single, &gets, b"VALUE"), 0, "gets of {length}");
        let misses: Vec<_> = (0..KEYS).map(|n| format!("get no-{n}\r\n").into()).collect();
        assert_eq!(counted(&mut single, &misses, b"END"), 0, "a miss");
    }
}

#[test]
fn a_get_of_many_keys_allocates_nothing() {
    let mut single = filled(1024);
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let lines: Vec<_> =
        keys.chunks(100).map(|keys| format!("get {}\r\n", keys.join(" ")).into()).collect();
    assert_eq!(counted(&mut single, &lines, b"VALUE"), 0);
}

#[test]
fn a_meta_get_allocates_nothing() {
    for length in LENGTHS {
        let mut single = filled(length);
        let gets: Vec<_> = (0..KEYS).map(|n| format!("mg {} v f c\r\n", key(n)).into()).collect();
        assert_eq!(counted(&mut single, &gets, b"VA"), 0, "mg of {length}");
    }
}

#[test]
fn a_set_of_the_same_size_allocates_nothing() {
    for length in LENGTHS {
        let mut single = filled(length);
        let sets: Vec<_> = (0..KEYS).map(|n| set(n, length)).collect();
        assert_eq!(counted(&mut single, &sets, b"STORED"), 0, "set of {length}");
    }
}

#[test]
fn a_delete_and_a_set_allocate_nothing() {
    for length in LENGTHS {
        let mut single = filled(length);
        let pairs: Vec<_> = (0..KEYS)
            .map(|n| [format!("delete {}\r\n", key(n)).into(), set(n, length)].concat())
            .collect();
        assert_eq!(counted(&mut single, &pairs, b"DELETED"), 0, "delete and set of {length}");
    }
}

#[test]
fn touching_and_counting_allocate_nothing() {
    let mut single = filled(100);
    let touches: Vec<_> = (0..KEYS).map(|n| format!("touch {} 3600\r\n", key(n)).into()).collect();
    assert_eq!(counted(&mut single, &touches, b"TOUCHED"), 0);
    single.says(b"set number 0 0 1\r\n5\r\n");
    assert_eq!(counted(&mut single, &[b"incr number 1\r\n".to_vec()], b""), 0);
}

/// Every set evicts: what goes and what comes is of the same size, and pages stay with their class.
#[test]
fn a_set_in_a_full_node_allocates_nothing() {
    const FULL: usize = 20_000;
    for length in [100, 4 << 10] {
        let mut single = Single::new(4 << 20);
        let sets: Vec<_> = (0..FULL).map(|n| set(n, length)).collect();
        for set in [&sets[..], &sets[..]].concat() {
            assert_eq!(single.says(&set), b"STORED\r\n");
        }
        let count = measure(|| assert!(sets.iter().all(|set| single.says(set) == b"STORED\r\n")));
        assert_eq!(count.count_total, 0, "set of {length}");
    }
}
