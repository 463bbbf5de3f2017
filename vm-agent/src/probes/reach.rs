//! Attempts over the network. They go to the host's own addresses and nowhere else, whatever a gateway says: a connection is made
//! from the very address that it goes to, which the kernel allows only where the host has it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes of an answer that are read: what is asked for is in the first line.
const READ: usize = 1024;
/// An answer begins so, and three digits follow.
const VERSION: &str = "HTTP/1.";

/// Whether one of the addresses takes a connection.
pub(super) async fn tcp(addresses: &[IpAddr], port: u16) -> Result<(), String> {
    connect(addresses, port).await.map(drop)
}

/// Whether one of the addresses answers a request with success.
pub(super) async fn http(addresses: &[IpAddr], port: u16, path: &str, host: &str) -> Result<(), String> {
    // Both become a part of the request.
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !is_plain(path) || !is_plain(host) {
        return Err(format!("{path:?} of {host:?} cannot be asked for"));
    }
    let (mut stream, at) = connect(addresses, port).await?;
    let host = if host.is_empty() { at.to_string() } else { host.to_owned() };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outrigger-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let answered = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while answer.len() < READ && !answer.contains(&b'\n') {
            if stream.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(answer)
    };
    let answer = answered.await.map_err(|error| format!("{at}: {error}"))?;
    judged(&answer).map_err(|why| format!("{at}: {why}"))
}

/// Whether an answer is a success.
fn judged(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let code = line.strip_prefix(VERSION).and_then(|rest| rest.split(' ').nth(1));
    let code = code.map(str::trim).filter(|code| code.len() == 3).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=299) => Ok(()),
        Some(code @ 300..=399) => Err(format!("{code}: redirects are not followed")),
        Some(code) => Err(code.to_string()),
        None => Err("the answer is no HTTP".to_owned()),
    }
}

/// A connection to the first of the addresses that takes one.
async fn connect(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), String> {
    let mut failed = Vec::new();
    for address in addresses {
        let at = SocketAddr::new(*address, port);
        match connect_to(at).await {
            Ok(stream) => return Ok((stream, at)),
            Err(error) => failed.push(format!("{at}: {error}")),
        }
    }
    Err(failed.join("; "))
}

async fn connect_to(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let own = SocketAddr::new(at.ip(), 0);
    socket.bind(own).map_err(|_not_own| io::Error::other("this host does not have the address"))?;
    socket.connect(at).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Answers one connection with a text; its port.
    async fn server(answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let count = stream.read(&mut asked).await.unwrap();
            asked.truncate(count);
            // Who has read enough is gone.
            drop(stream.write_all(answer).await);
            asked
        });
        (port, serving)
    }

    const LOOPBACK: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

    #[tokio::test]
    async fn an_answer_of_success_passes_and_a_redirect_is_not_followed() {
        let (port, serving) = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        http(&LOOPBACK, port, "/healthz?a=b", "db.example").await.unwrap();
        let asked = String::from_utf8(serving.await.unwrap()).unwrap();
        assert!(asked.starts_with("GET /healthz?a=b HTTP/1.1\r\nHost: db.example\r\n"), "{asked}");
        // Where it points to is nobody's business: nothing else is asked.
        let (port, _serving) = server(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n").await;
        let failed = http(&LOOPBACK, port, "/", "").await.unwrap_err();
        assert!(failed.contains("302: redirects are not followed"), "{failed}");
    }

    #[tokio::test]
    async fn what_is_no_success_fails_and_no_answer_is_read_for_ever() {
        static LONG: [u8; 1 << 20] = [b'a'; 1 << 20];
        let answers: [(&[u8], &str); 5] = [
            (b"HTTP/1.0 503 Busy\r\n", "503"),
            (b"HTTP/1.1 20", "no HTTP"),
            (b"SSH-2.0-x\r\n", "no HTTP"),
            (b"", "no HTTP"),
            (&LONG, "no HTTP"),
        ];
        for (answer, said) in answers {
            let (port, _serving) = server(answer).await;
            let failed = http(&LOOPBACK, port, "/", "").await.unwrap_err();
            assert!(failed.contains(said), "{failed}");
        }
        let failed = http(&LOOPBACK, 1, "/\r\nX: y", "").await.unwrap_err();
        assert!(failed.contains("cannot be asked for"), "{failed}");
    }

    #[tokio::test]
    async fn nothing_is_asked_of_an_address_that_is_not_the_hosts_own() {
        let other: IpAddr = "192.0.2.77".parse().unwrap();
        let failed = tcp(&[other], 80).await.unwrap_err();
        assert!(failed.contains("192.0.2.77:80: this host does not have the address"), "{failed}");
        let (port, _serving) = server(b"").await;
        tcp(&[other, LOOPBACK[0]], port).await.unwrap();
    }
}
