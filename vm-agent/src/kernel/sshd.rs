//! The ports where sshd listens: those of its configuration, those where systemd listens for it, and those that processes
//! of it have open.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const CONFIGURATION: &str = "/etc/ssh/sshd_config";
const DROP_INS: &str = "/etc/ssh/sshd_config.d";
/// Where systemd finds units (`systemd.unit(5)`). All count, also those that others override: a port too many stays open
/// rather than one too few.
const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const UNITS: [&str; 2] = ["ssh.socket", "sshd.socket"];
/// Of the calling thread, as namespaces belong to threads.
const TCP_TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
const DEFAULT_PORT: u16 = 22;

/// The ports; the default one where neither says anything. What cannot be read says nothing.
pub(super) fn ports() -> BTreeSet<u16> {
    let mut ports = configured();
    ports.extend(activated());
    if ports.is_empty() {
        ports.insert(DEFAULT_PORT);
    }
    let sockets = sockets();
    let tables = TCP_TABLES.iter().filter_map(|path| fs::read_to_string(path).ok());
    ports.extend(tables.flat_map(|table| listening(&table, &sockets)));
    ports
}

fn configured() -> BTreeSet<u16> {
    let drop_ins = fs::read_dir(DROP_INS).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = std::iter::once(Path::new(CONFIGURATION).to_owned()).chain(drop_ins);
    files.filter_map(|path| fs::read_to_string(path).ok()).flat_map(|text| of_configuration(&text)).collect()
}

/// `Port` and `ListenAddress` of `sshd_config(5)`.
fn of_configuration(text: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
        let (key, value) = (words.next()?.to_ascii_lowercase(), words.next()?);
        match key.as_str() {
            "port" => value.parse().ok(),
            // `[::1]:22`, `host:22`; an address alone has the port of `Port`.
            "listenaddress" => {
                let (host, port) = value.rsplit_once(':')?;
                (host.ends_with(']') || !host.contains(':')).then(|| port.parse().ok()).flatten()
            }
            _ => None,
        }
    };
    text.lines().filter_map(port).collect()
}

/// Where systemd listens for it.
fn activated() -> BTreeSet<u16> {
    let folders = UNIT_FOLDERS.iter().map(Path::new);
    let units = folders.flat_map(|folder| UNITS.map(|unit| folder.join(unit)));
    let files = units.flat_map(|unit| {
        let mut drop_ins = unit.clone().into_os_string();
        drop_ins.push(".d");
        let drop_ins = fs::read_dir(drop_ins).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(unit).chain(drop_ins).collect::<Vec<_>>()
    });
    files.filter_map(|path| fs::read_to_string(path).ok()).flat_map(|text| of_unit(&text)).collect()
}

/// `ListenStream` of `systemd.socket(5)`: a port, `address:port`, or a path, which is none.
fn of_unit(text: &str) -> Vec<u16> {
    let port = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        let port = value.rsplit_once(':').map_or(value, |(_, port)| port);
        (key.trim() == "ListenStream").then(|| port.parse().ok()).flatten()
    };
    text.lines().filter_map(port).collect()
}

/// The inodes of sockets that processes of sshd have.
fn sockets() -> BTreeSet<u64> {
    let is_sshd = |path: &Path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end().starts_with("sshd"))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let descriptors = processes.filter(|path| is_sshd(path)).flat_map(|path| {
        fs::read_dir(path.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    let inode = |path: std::path::PathBuf| {
        let target = fs::read_link(path).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.filter_map(inode).collect()
}

/// The ports of `/proc/net/tcp` (proc(5)) where one of these sockets listens.
fn listening(table: &str, sockets: &BTreeSet<u64>) -> Vec<u16> {
    const LISTEN: &str = "0A";
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let inode: u64 = fields.nth(5)?.parse().ok()?;
        let is_one = state == LISTEN && sockets.contains(&inode);
        is_one.then(|| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_configuration() {
        let text = "#Port 1\nPort 2222\n port=23\nListenAddress 0.0.0.0\nListenAddress [::]:2022\n\
            ListenAddress 192.0.2.1:2023\nListenAddress ::1\nPermitRootLogin no\n";
        assert_eq!(of_configuration(text), [2222, 23, 2022, 2023]);
        assert!(of_configuration("").is_empty());
    }

    #[test]
    fn ports_of_units() {
        let text = "[Socket]\nListenStream=\nListenStream = 2222\nListenStream=[::]:2022\nListenStream=192.0.2.1:23\n\
            ListenStream=/run/ssh.sock\n#ListenStream=99\nListenDatagram=98\n";
        assert_eq!(of_unit(text), [2222, 2022, 23]);
    }

    #[test]
    fn only_sockets_of_sshd_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0\n\
            1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 200 1 0\n\
            2: 0100007F:1770 0100007F:0001 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0\n";
        assert_eq!(listening(table, &[100, 101].into()), [22]);
    }
}
