//! An HTTP proxy that only tunnels (`CONNECT`, RFC 9110 §9.3.6).

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Shared, Stop, report_while_serving};

/// The proxy.
#[derive(Debug, Args)]
pub struct Proxy {
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = super::everywhere())]
    address: IpAddr,
    /// Tunnels that are cut,
    #[arg(long, default_value_t = 0)]
    cut: usize,
    /// once so many bytes came back through them.
    #[arg(long, default_value_t = 0)]
    cut_after: u64,
}

/// What it was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProxyReport {
    /// Whether it listens.
    pub listening: bool,
    /// Whom it connected clients to.
    pub tunnels: Vec<String>,
}

impl Proxy {
    pub(super) fn run(&self) -> Result<()> {
        let listener = TcpListener::bind((self.address, self.port))?;
        let report = Shared::new(ProxyReport { listening: true, ..ProxyReport::default() });
        let stop = Stop::on_input_closed();
        let shared = report.clone();
        let (cut, cut_after) = (self.cut, self.cut_after);
        thread::spawn(move || {
            for (client, number) in listener.incoming().flatten().zip(0..) {
                let report = shared.clone();
                let most = if number < cut { cut_after } else { u64::MAX };
                // A client that goes away in the middle is its own affair.
                thread::spawn(move || drop(serve(client, most, &report)));
            }
        });
        report_while_serving(&report, &stop)
    }
}

fn serve(mut client: TcpStream, most: u64, report: &Shared<ProxyReport>) -> Result<()> {
    let mut request = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = first.split_whitespace();
    let (Some("CONNECT"), Some(to)) = (words.next(), words.next()) else {
        client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")?;
        bail!("{first}");
    };
    let server = TcpStream::connect(to).with_context(|| to.to_owned())?;
    report.update(|report| report.tunnels.push(to.to_owned()));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (from_client, to_client) = (client.try_clone()?, client);
    let (from_server, to_server) = (server.try_clone()?, server);
    thread::spawn(move || pass(from_client, u64::MAX, to_server));
    pass(from_server, most, to_client);
    Ok(())
}

/// Passes bytes on until one side ends, or so many, then ends the other.
fn pass(from: TcpStream, most: u64, mut to: TcpStream) {
    let _ended = std::io::copy(&mut from.take(most), &mut to);
    let _gone = to.shutdown(Shutdown::Both);
}
