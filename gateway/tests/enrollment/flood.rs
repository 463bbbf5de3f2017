//! What one peer does to the gateway must not be felt by another.

use std::time::{Duration, Instant};

use pki::KeyPair;
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::mesh_client::MeshClient;
use proto::v1::{AgentMessage, GatewayMessage, Hello, agent_message};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::gateway::{CONNECTIONS, Gateway};
use crate::host::{Member, pinning, request, tls, token};
use crate::member;

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A session, and what keeps it open.
pub(crate) struct Open {
    pub(crate) inbound: Streaming<GatewayMessage>,
    _outbound: mpsc::Sender<AgentMessage>,
}

/// Connects as agents do: again, where that failed.
async fn connect(gateway: &Gateway, config: ClientConfig) -> Channel {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tls(gateway, config.clone()).await {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {error}"),
        }
    }
}

pub(crate) async fn sync(gateway: &Gateway, member: &Member) -> Open {
    let channel = connect(gateway, member.config(gateway)).await;
    let (sender, receiver) = mpsc::channel(1);
    let hello = Hello { machine: vec![7; 32], ..Hello::default() };
    let message = AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
    sender.send(message).await.unwrap();
    let inbound = MeshClient::new(channel).sync(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    Open { inbound, _outbound: sender }
}

/// A policy of several times what a connection buffers.
fn large() -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {}, namespace: shop}}, \
         spec: {{podSelector: {{}}, ingress: [{}]}}}}\n",
        "p".repeat(253),
        "{},".repeat(35_000)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_nothing_is_cut_and_another_one_is_not() {
    let gateway = Gateway::with(&large()).await;
    let (first, second) = (member(&gateway, "db-1").await, member(&gateway, "db-2").await);
    let mut stalled = sync(&gateway, &first).await;
    let mut live = sync(&gateway, &second).await;
    let reading = tokio::spawn(async move { while let Ok(Some(_message)) = live.inbound.message().await {} });
    let registry = gateway.registry.get().unwrap();
    let connected = || registry.connected().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(connected(), ["shop/db-1", "shop/db-2"]);
    // Its connection answers; it is what it was sent that lies there.
    let overdue = || registry.writes().cut_overdue(Duration::from_millis(500), Instant::now()) == 1;
    eventually("it is overdue", overdue).await;
    eventually("its session is over", || connected() == ["shop/db-2"]).await;
    assert!(!reading.is_finished());
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Ok(Some(_message)) = stalled.inbound.message().await {}
    });
    assert!(ended.await.is_ok(), "the connection is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_handshakes_starve_nobody() {
    let gateway = Gateway::start().await;
    let first = member(&gateway, "db-1").await;
    let mut live = sync(&gateway, &first).await;
    assert!(live.inbound.message().await.unwrap().is_some());
    // As many at a time as files allow; the gateway has room for a fraction.
    let address = gateway.address;
    let flood = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        for number in 0..10_000 {
            if number % 100 == 0 {
                // The window in which a host has to speak is what the flood needs to fill all room.
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            let Ok(stream) = TcpStream::connect(address).await else { continue };
            held.push_back(stream);
            if held.len() > 2 * CONNECTIONS {
                held.pop_front();
            }
        }
        held
    });
    let full = || gateway.connections.count("silent") > 1000;
    eventually("the gateway is full", full).await;
    // Somebody new gets in, who is there goes on, and both are told what changes.
    let (token, key) = (token(&gateway).await, KeyPair::generate().unwrap());
    let mut stranger = EnrollmentClient::new(connect(&gateway, pinning(&gateway, &token)).await);
    let welcome = stranger.join(request(&token, &key, "db-2")).await.unwrap().into_inner();
    let second = Member { key, welcome };
    let mut joined = sync(&gateway, &second).await;
    assert!(joined.inbound.message().await.unwrap().is_some());
    assert!(!flood.is_finished(), "all of that was under the flood");
    let held = flood.await.unwrap();
    assert!(gateway.connections.count("silent") > 5000, "{}", gateway.connections.count("silent"));
    assert_eq!(gateway.connections.count("limit"), 0);
    let registry = gateway.registry.get().unwrap();
    assert_eq!(registry.connected().len(), 2);
    drop(held);
}
