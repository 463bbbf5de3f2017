//! A small HTTP/1.1 server and client: enough to be curled, no more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::Stop;

/// Server.
#[derive(Debug, Args)]
pub struct Serve {
    /// Port to listen on.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = super::everywhere())]
    address: IpAddr,
    /// What the server calls itself.
    #[arg(long, default_value = "server")]
    name: String,
}

/// Client.
#[derive(Debug, Args)]
pub struct Get {
    /// `http://address:port/path`.
    url: String,
    /// Give up after this time.
    #[arg(long, default_value_t = 2000)]
    timeout_ms: u64,
    /// Print the length of the body instead of the body.
    #[arg(long)]
    length: bool,
}

impl Serve {
    pub(super) fn run(&self) -> Result<()> {
        let listener = TcpListener::bind((self.address, self.port))?;
        let name = self.name.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                thread::spawn(move || answer(&stream, &name));
            }
        });
        let stop = Stop::on_input_closed();
        println!("{{\"listening\":{}}}", self.port);
        while !stop.is_set() {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn answer(stream: &TcpStream, name: &str) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().context("no request")??;
    // The rest of the head says nothing that matters here.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or("/");
    let body = match path.strip_prefix("/bytes/").and_then(|number| number.parse().ok()) {
        Some(length) => vec![b'x'; length],
        None => format!("hello from {name}, {}\n", canonical(stream.peer_addr()?.ip())).into_bytes(),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}

/// An IPv4 address that arrived at a socket of both families, as IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

impl Get {
    pub(super) fn run(&self) -> Result<()> {
        let rest = self.url.strip_prefix("http://").context("the URL is not http://…")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let server: SocketAddr =
            authority.parse().or_else(|_| format!("{authority}:80").parse()).context("no address:port")?;
        let limit = Duration::from_millis(self.timeout_ms);
        let mut stream = TcpStream::connect_timeout(&server, limit)
            .with_context(|| format!("cannot connect to {server}"))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).with_context(|| format!("{server} did not answer"))?;
        let text = String::from_utf8_lossy(&reply);
        let (head, body) = text.split_once("\r\n\r\n").context("the answer ends in its head")?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("{server} answered {}", head.lines().next().unwrap_or_default());
        }
        if self.length {
            println!("{}", body.len());
        } else {
            print!("{body}");
        }
        Ok(())
    }
}
