//! `-l`, `-p` and `-s`: where clients connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use sessiond::server::Listen;

/// memcached lets a listener be named with at most this many letters.
const TAG_MAX: usize = 8;

/// Everything a list of addresses stands for. The entries of several `-l` add up.
pub(super) fn listens(lists: &[String], port: i32) -> Result<Vec<Listen>, String> {
    let entries = lists.iter().flat_map(|list| list.split([',', ';']));
    let mut listens: Vec<Listen> = Vec::new();
    for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
        let listen = listen(entry, port)?;
        // Whoever says an address twice does not mean to have it refused as in use.
        if !listens.contains(&listen) {
            listens.push(listen);
        }
    }
    Ok(listens)
}

/// Every address of this machine.
pub(super) fn everywhere(port: u16) -> Listen {
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    Listen::Tcp { addresses: any.map(|address| SocketAddr::new(address, port)).into() }
}

/// This machine alone.
pub(super) fn loopback(port: u16) -> Listen {
    Listen::Tcp { addresses: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)] }
}

/// -1 is any free port, which the kernel knows as 0.
pub(super) fn port_number(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

fn listen(entry: &str, port: i32) -> Result<Listen, String> {
    let wrong = || format!("-l {entry}: expected an address, e.g. 127.0.0.1 or [::1]:11211");
    let (host, port) = split_port(without_prefixes(entry)?, port).ok_or_else(wrong)?;
    let port = port_number(port);
    if host == "*" {
        return Ok(everywhere(port));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Listen::Tcp { addresses: vec![SocketAddr::new(address, port)] });
    }
    let mut addresses: Vec<_> = (host, port).to_socket_addrs().map_err(|_| wrong())?.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() { Err(wrong()) } else { Ok(Listen::Tcp { addresses }) }
}

/// Takes memcached's words before an address off: `proto[ascii]:`, `tag[name]:`, `notls:`.
fn without_prefixes(entry: &str) -> Result<&str, String> {
    let mut rest = entry;
    if let Some(after) = rest.strip_prefix("notls:") {
        rest = after;
    }
    if rest.starts_with("btls:") || rest.starts_with("mtls:") {
        return Err(format!("-l {entry}: clients cannot use TLS yet"));
    }
    if let Some((protocol, after)) = bracketed(rest, "proto") {
        if !["ascii", "negotiating"].contains(&protocol) {
            return Err(format!("-l {entry}: only the ascii protocol is served"));
        }
        rest = after;
    }
    if let Some((tag, after)) = bracketed(rest, "tag") {
        if !(1..=TAG_MAX).contains(&tag.len()) {
            return Err(format!("-l {entry}: a tag has 1 to {TAG_MAX} letters"));
        }
        rest = after;
    }
    Ok(rest)
}

/// The word in `name[word]:rest`, and the rest.
fn bracketed<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(name)?.strip_prefix('[')?.split_once("]:")
}

/// One colon starts a port; more of them are an IPv6 address, unless that stands in brackets.
fn split_port(text: &str, port: i32) -> Option<(&str, i32)> {
    let own_port = |text: &str| text.parse::<u16>().ok().map(i32::from);
    if let Some(inside) = text.strip_prefix('[') {
        let (host, after) = inside.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(own) => Some((host, own_port(own)?)),
            None => after.is_empty().then_some((host, port)),
        };
    }
    match text.split_once(':') {
        Some((host, own)) if !own.contains(':') => Some((host, own_port(own)?)),
        _ => Some((text, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &str) -> Vec<String> {
        let lists: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
        let tcp = |listen| match listen {
            Listen::Tcp { addresses } => addresses,
            Listen::Unix { .. } => panic!("-l makes no sockets in files"),
        };
        let listens = listens(&lists, 11211).unwrap();
        listens.into_iter().flat_map(tcp).map(|address| address.to_string()).collect()
    }

    #[test]
    fn a_list_may_mix_hosts_ports_and_families() {
        assert_eq!(addresses("127.0.0.1,::1"), ["127.0.0.1:11211", "[::1]:11211"]);
        assert_eq!(addresses("127.0.0.1:1;[::1]:2"), ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(addresses("[::1]"), ["[::1]:11211"]);
        assert_eq!(addresses("*"), ["0.0.0.0:11211", "[::]:11211"]);
    }

    #[test]
    fn several_lists_add_up_and_an_address_counts_once() {
        assert_eq!(addresses("127.0.0.1 ::1 127.0.0.1"), ["127.0.0.1:11211", "[::1]:11211"]);
    }

    #[test]
    fn prefixes_that_change_nothing_are_taken_and_others_refused() {
        assert_eq!(addresses("proto[ascii]:tag[web]:127.0.0.1:5"), ["127.0.0.1:5"]);
        for list in ["proto[binary]:127.0.0.1", "tag[]:127.0.0.1", "mtls:127.0.0.1", "127.0.0.1:x"]
        {
            assert!(listens(&[list.to_owned()], 1).is_err(), "{list}");
        }
    }
}
