//! The socket of a host that has not joined, as a command sees it.

use hyper_util::rt::TokioIo;
use proto::v1::agent_client::AgentClient;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::config::{Config, Options};
use crate::machine::Machine;
use crate::operations::Operations;
use crate::state_dir::StateDir;

struct Running {
    folder: tempfile::TempDir,
    shutdown: Shutdown,
    client: AgentClient<Channel>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// An agent without a kernel: nothing that these tests ask for needs one.
async fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("machine-id"), "0123\n").unwrap();
    let config = Config {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
        machine_id_file: folder.path().join("machine-id"),
        dmi_uuid_file: folder.path().join("none"),
        ..Config::from(Options::default())
    };
    let state = StateDir::open(&config.state_dir, "default").unwrap();
    let machine = Machine::observe(&config.machine_id_file, &config.dmi_uuid_file).unwrap();
    let path = config.socket();
    let socket = UnixListener::from_std(::config::bind_socket(&path, "agent").unwrap()).unwrap();
    let agent = Arc::new(Agent::new(config, state, machine, pki::system_time()));
    let (commands, inbox) = mpsc::channel(1);
    let (reconciles, _kernels) = mpsc::channel(1);
    let (started, has_started) = oneshot::channel();
    tokio::spawn(
        Operations::new(agent.clone(), inbox, reconciles, rand::SeedableRng::seed_from_u64(1))
            .run(started, telemetry::pulse::Pulse::unwatched()),
    );
    has_started.await.unwrap();
    let shutdown = Shutdown::default();
    let service = Service::new(agent, commands, Events::default(), shutdown.clone());
    tokio::spawn(serve(socket, service, shutdown.clone()));
    let connector = tower::service_fn(move |_uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://agent").connect_with_connector(connector).await.unwrap();
    Running { folder, shutdown, client: AgentClient::new(channel) }
}

#[tokio::test]
async fn an_unjoined_agent_says_so_to_everything() {
    let mut agent = start().await;
    let status = agent.client.status(AgentStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.phase.as_str(), status.state_source.as_str()), ("unjoined", "none"));
    let not_joined = Some(Code::FailedPrecondition);
    let code = |status: Status| Some(status.code());
    assert_eq!(agent.client.leave(AgentLeaveRequest { force: false }).await.err().and_then(code), not_joined);
    assert_eq!(agent.client.monitor(MonitorRequest::default()).await.err().and_then(code), not_joined);
    assert_eq!(
        agent.client.list_policies(ListPoliciesRequest::default()).await.err().and_then(code),
        not_joined
    );
    assert_eq!(agent.client.list_endpoints(ListEndpointsRequest {}).await.err().and_then(code), not_joined);
    assert_eq!(
        agent.client.test_connectivity(TestConnectivityRequest {}).await.err().and_then(code),
        not_joined
    );
}

#[tokio::test]
async fn a_damaged_token_is_refused_without_a_trace() {
    let mut agent = start().await;
    for token in ["", "nonsense", "ogr1_AAAA"] {
        let request = AgentJoinRequest { token: token.to_owned(), ..AgentJoinRequest::default() };
        let mut steps = agent.client.join(request).await.unwrap().into_inner();
        let error = steps.message().await.unwrap_err();
        assert!(error.message().contains("token"), "{error}");
    }
    let files = std::fs::read_dir(agent.folder.path().join("state/default")).unwrap().count();
    assert_eq!(files, 0);
    let status = agent.client.status(AgentStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.phase, "unjoined");
}

#[tokio::test]
async fn nothing_can_be_adopted_where_nothing_is() {
    let mut agent = start().await;
    let request = AgentJoinRequest { adopt: true, ..AgentJoinRequest::default() };
    let mut steps = agent.client.join(request).await.unwrap().into_inner();
    assert_eq!(steps.message().await.unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn only_root_is_served() {
    assert_eq!(only_root(Request::new(())).unwrap_err().code(), Code::PermissionDenied);
}
