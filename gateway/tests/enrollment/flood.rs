//! What one peer does to the gateway must not be felt by another.

use std::time::{Duration, Instant};

use proto::v1::mesh_client::MeshClient;
use proto::v1::{AgentMessage, GatewayMessage, Hello, agent_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::gateway::Gateway;
use crate::host::{Member, tls};
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
struct Open {
    inbound: Streaming<GatewayMessage>,
    _outbound: mpsc::Sender<AgentMessage>,
}

async fn sync(gateway: &Gateway, member: &Member) -> Open {
    let channel = tls(gateway, member.config(gateway)).await.unwrap();
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
