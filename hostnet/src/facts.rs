//! What a mesh prefix must never cover, as far as the host itself knows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::{fs, io};

/// Addresses a host cannot do without, besides what its routes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The resolvers it is configured with.
    pub nameservers: Vec<IpAddr>,
    /// The SSH connections to it: this end's address, the other end's.
    pub ssh_connections: Vec<(IpAddr, IpAddr)>,
    /// Whatever else the caller protects, each with what it is.
    pub protected: Vec<(String, IpAddr)>,
}

/// The stub of systemd-resolved is in `/etc/resolv.conf`, the servers it asks are in the other file.
const RESOLVER_FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Of the calling thread, as namespaces belong to threads.
const TCP_TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
const SSH_PORT: u16 = 22;

impl HostFacts {
    /// Reads resolver files, `SSH_CONNECTION` and the TCP connections to port 22. A missing file says nothing.
    ///
    /// # Errors
    /// A file that is there and cannot be read, with its name.
    pub fn gather(ssh_connection: Option<&str>) -> io::Result<Self> {
        let mut facts = Self::default();
        for path in RESOLVER_FILES {
            facts.nameservers.extend(nameservers(&read(path)?));
        }
        facts.ssh_connections.extend(ssh_connection.and_then(ssh_ends));
        for path in TCP_TABLES {
            facts.ssh_connections.extend(established(&read(path)?, SSH_PORT));
        }
        facts.nameservers.sort_unstable();
        facts.nameservers.dedup();
        facts.ssh_connections.sort_unstable();
        facts.ssh_connections.dedup();
        Ok(facts)
    }
}

fn read(path: &str) -> io::Result<String> {
    match fs::read(Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        // A comment may have any bytes.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The `nameserver` lines of resolv.conf(5); a zone after `%` names a link and is left out.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        words.next()?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(address).collect()
}

/// The ends in `SSH_CONNECTION` (ssh(1)): client address, client port, server address, server port.
fn ssh_ends(value: &str) -> Option<(IpAddr, IpAddr)> {
    let mut words = value.split_whitespace();
    let client = words.next()?.parse().ok()?;
    Some((words.nth(1)?.parse().ok()?, client))
}

/// The local and remote addresses of established connections to a local port, from `/proc/net/tcp` (see proc(5)).
fn established(table: &str, port: u16) -> Vec<(IpAddr, IpAddr)> {
    const ESTABLISHED: &str = "01";
    let ends = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (local, local_port) = local.split_once(':')?;
        if state != ESTABLISHED || u16::from_str_radix(local_port, 16) != Ok(port) {
            return None;
        }
        Some((address(local)?, address(remote.split_once(':')?.0)?))
    };
    table.lines().skip(1).filter_map(ends).collect()
}

/// An address as `/proc/net/tcp` writes it: words of the machine's order, in hexadecimal.
fn address(text: &str) -> Option<IpAddr> {
    let word = |start: usize| u32::from_str_radix(text.get(start..start + 8)?, 16).ok();
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))),
        32 => {
            let mut octets = [0; 16];
            for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?.to_ne_bytes());
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_and_noise_is_not() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver x\n";
        assert_eq!(nameservers(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn only_established_connections_to_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 0A00000A:0016 0101A8C0:C350 01 00000000:00000000\n\
             1: 00000000:0016 00000000:0000 0A 00000000:00000000\n\
             2: 0A00000A:0050 0201A8C0:C350 01 00000000:00000000\n";
        let ends = ("10.0.0.10".parse().unwrap(), "192.168.1.1".parse().unwrap());
        assert_eq!(established(table, 22), [ends]);
    }

    #[test]
    fn mapped_and_real_ipv6_addresses_are_told_apart() {
        assert_eq!(address("0000000000000000FFFF00000101A8C0"), "192.168.1.1".parse().ok());
        assert_eq!(address("B80D0120000000000000000001000000"), "2001:db8::1".parse().ok());
        assert_eq!(address("B80D01"), None);
    }

    #[test]
    fn the_ssh_client_comes_before_the_server() {
        let ends = ("2001:db8::1".parse().unwrap(), "2001:db8::7".parse().unwrap());
        assert_eq!(ssh_ends("2001:db8::7 50022 2001:db8::1 22"), Some(ends));
        assert_eq!(ssh_ends("2001:db8::7"), None);
    }
}
