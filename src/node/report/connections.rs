//! `stats conns`: one block for each socket.

use std::fmt::Display;

use super::Node;
use crate::node::connections::Doing;
use crate::protocol::reply;
use crate::time::Now;

pub(super) fn write<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    for connection in node.connections.all() {
        let (socket, doing) = (&connection.socket, connection.doing());
        let mut line = |name: &str, value: &dyn Display| {
            reply::print(out, format_args!("STAT {}:{name} {value}\r\n", socket.descriptor));
        };
        if doing == Doing::Listening {
            line("addr", &socket.local);
        } else {
            line("addr", &socket.remote);
            line("listen_addr", &socket.local);
        }
        line("state", &doing.name());
        line("secs_since_last_cmd", &connection.idle_s(now));
    }
}
