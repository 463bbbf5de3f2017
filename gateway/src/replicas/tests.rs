//! Who is believed, on real connections over loopback.

use std::sync::Arc;

use pki::TrustDomain;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::stand_by::open;
use super::*;
use crate::clock::Clock;
use crate::election::Term;
use crate::tls::Stream;

const HOST: &str = "192.0.2.7:40000";

struct World {
    domain: TrustDomain,
    leader: SocketAddr,
    term: Term,
    taken: mpsc::Receiver<(Stream, SocketAddr)>,
    /// Those of the term, as a replica reads them.
    keys: TermKeys,
}

impl World {
    async fn new() -> Self {
        let domain = TrustDomain::try_new("outrigger.local").unwrap();
        let keys = TermKeys::create(&domain, Clock::system()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let leader = listener.local_addr().unwrap();
        let (sender, taken) = mpsc::channel(4);
        let term = Term::of_a_test();
        tokio::spawn(take_over(listener, keys.copy(), sender, term.clone()).unwrap());
        Self { domain, leader, term, taken, keys }
    }

    /// Fails where the leader does not want to hear it.
    async fn say(&self, config: ClientConfig, head: Head) -> std::io::Result<()> {
        let mut stream = open(Arc::new(config), self.leader, head).await?;
        // Whoever is believed is waited for.
        tokio::time::timeout(PATIENCE, stream.read_u8()).await.map_or(Ok(()), |read| read.map(drop))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_term_says_where_a_host_comes_from() {
    let mut world = World::new().await;
    let host = Head::Host(HOST.parse().unwrap());
    let mut replica = open(Arc::new(world.keys.client().unwrap()), world.leader, host).await.unwrap();
    replica.write_all(b"hello").await.unwrap();
    let (mut stream, from) = world.taken.recv().await.unwrap();
    assert_eq!(from, HOST.parse().unwrap());
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    stream.write_all(b"!").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(replica.read_u8().await.unwrap(), b'!');
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed() {
    let mut world = World::new().await;
    let other = TermKeys::create(&world.domain, Clock::system()).unwrap();
    for head in [Head::Host(HOST.parse().unwrap()), Head::Ended] {
        assert!(world.say(other.client().unwrap(), head).await.is_err(), "keys of another term");
        // Who shows no certificate, as a host that joins.
        let time = Clock::system().source();
        let mut config = pki::tls::client_by_pins(&[world.keys.pin()], &world.domain, time).unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        assert!(world.say(config, head).await.is_err(), "no certificate");
    }
    assert!(world.term.remaining().is_ok(), "a stranger ended the term");
    assert!(world.taken.try_recv().is_err(), "a stranger was believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_lease_ends_the_term_of_before() {
    let world = World::new().await;
    tell_ended(world.keys.copy(), world.leader).await;
    assert!(world.term.over().await.contains("another gateway"));
}

#[test]
fn a_head_says_what_it_said() {
    for from in [HOST, "[2001:db8::1]:7443", "[::1]:1"] {
        let head = Head::Host(from.parse().unwrap());
        assert_eq!(Head::decode(&head.encode()), Some(head));
    }
    assert_eq!(Head::decode(&Head::Ended.encode()), Some(Head::Ended));
    assert_eq!(Head::decode(&[3; HEAD]), None);
}
