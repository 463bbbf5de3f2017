//! Second streams of a host: its own key, its own certificate, its own machine, beside the stream of its agent, which the
//! gateway ends for each of them. They read what they are sent, and confirm nothing.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use pki::{KeyPair, Svid, TrustBundle, UnixTime};
use proto::v1::mesh_client::MeshClient;
use proto::v1::{AgentMessage, Hello, agent_message};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use vm_agent::machine::Machine;

use super::trouble::{Counts, Log, wait};
use crate::agent::Agent;

/// How long a second stream is open, unless the agent comes back earlier.
const OPEN: Duration = Duration::from_secs(1);

/// What a second stream needs of a host.
#[derive(Clone, Debug)]
pub struct Double {
    host: String,
    holder: u32,
    folder: PathBuf,
    state: PathBuf,
    gateway: SocketAddr,
}

impl Double {
    /// That of an agent that has joined.
    #[must_use]
    pub fn of(agent: &Agent, gateway: SocketAddr) -> Self {
        let host = agent.host();
        Self {
            host: host.name().to_owned(),
            holder: host.namespace().holder(),
            folder: host.folder().to_owned(),
            state: agent.state(),
            gateway,
        }
    }

    /// Opens one after the other, each after some seconds, until `stop`. Takes the thread into the host's namespace.
    pub fn run(&self, seed: u64, (log, counts): (&Log, &Counts), stop: &AtomicBool) -> Result<()> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut random = StdRng::seed_from_u64(seed);
        while wait(Duration::from_millis(random.random_range(3000..9000)), stop) {
            if counts.peace.load(Ordering::Relaxed) {
                continue;
            }
            log.note(format!("a second stream of {}", self.host));
            match runtime.block_on(async { tokio::time::timeout(2 * OPEN, self.open()).await }) {
                Ok(Ok(())) => drop(counts.doubles.fetch_add(1, Ordering::Relaxed)),
                Ok(Err(error)) => log.note(format!("no second stream of {}: {error:#}", self.host)),
                Err(_elapsed) => log.note(format!("no second stream of {} in time", self.host)),
            }
        }
        Ok(())
    }

    /// A stream that is answered; then it stays open for a while.
    async fn open(&self) -> Result<()> {
        let read = |file: &str| {
            let path = self.state.join(file);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let chain = pki::certificates_from_pem(&read("certificate.pem")?)?;
        let bundle = TrustBundle::from_pem(&read("bundle.pem")?)?;
        let key = KeyPair::from_pem(&read("identity.key")?)?;
        let svid = Svid::from_der(chain.first().context("no certificate")?)?;
        let never = UnixTime::since_unix_epoch(Duration::ZERO);
        let domain = svid.id().trust_domain();
        let tls = pki::tls::client_mutual(&bundle, domain, chain, &key, never, pki::system_time())?;
        let connection = vm_agent::transport::Dialer::default().connect(&self.gateway.to_string(), tls).await;
        let channel = connection.map_err(|error| anyhow!("{error}"))?.channel;
        let machine = Machine::observe(&self.folder.join("machine-id"), &self.folder.join("product_uuid"))?;
        let hello = Hello { machine: machine.as_bytes().to_vec(), ..Hello::default() };
        let (orders, receiver) = mpsc::channel(1);
        let hello = AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
        orders.send(hello).await.context("the stream is closed")?;
        let mut client = MeshClient::new(channel).max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
        let mut answers = client.sync(ReceiverStream::new(receiver)).await?.into_inner();
        answers.message().await?.context("the stream ended unanswered")?;
        // Until the agent is back, or the time is over.
        let read_on = async { while matches!(answers.message().await, Ok(Some(_))) {} };
        let _either = tokio::time::timeout(OPEN, read_on).await;
        Ok(())
    }
}
