//! A gateway's double: takes one host in and streams it a scripted state, over the real protocol and real TLS. Keeps
//! nothing on a disk and compiles no manifests, so that what is measured is the agent.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pki::{Authority, CheckedCsr, KeyPair, SpiffeId, TrustDomain};
use prost::Message as _;
use proto::v1::{GatewayMessage, Generation, JoinToken, Update, gateway_message};
use secrecy::ExposeSecret as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;
use tonic::Status;

use super::world::World;
use crate::host::Host;

mod service;
mod wire;

/// The incarnation of every generation.
const INCARNATION: u64 = 7;
/// Certificates outlive every measurement.
const LIFETIME: Duration = Duration::from_hours(12);
const PORT: u16 = 7443;

/// The double; it serves as long as it lives.
pub(super) struct Double {
    shared: Arc<Shared>,
    told: Receiver<Told>,
    /// The last generation that was acknowledged, and when.
    acked: Cell<(u64, Instant)>,
    token: String,
    _runtime: Runtime,
}

/// What the agent said about a generation.
struct Told {
    generation: u64,
    at: Instant,
    /// Why it is not in force; empty if it is.
    refused: String,
}

struct Shared {
    authority: Authority,
    gateway: String,
    state: Mutex<State>,
    told: Sender<Told>,
}

struct State {
    world: World,
    generation: u64,
    stream: Option<UnboundedSender<Result<GatewayMessage, Status>>>,
}

impl Double {
    /// Serves this world on a machine.
    pub(super) fn start(host: &Host, world: World) -> Result<Self> {
        let domain = TrustDomain::try_new("outrigger.local")?;
        let authority = Authority::create(&domain, now()?)?;
        let address = SocketAddr::new(host.address(), PORT);
        let listener = host.namespace().inside(|| Ok(TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let acceptor = wire::acceptor(&authority, &domain)?;
        let token = JoinToken {
            gateways: vec![address.to_string()],
            root_pins: vec![authority.pin().as_bytes().to_vec()],
            trust_domain: domain.to_string(),
            id: "double".to_owned(),
            secret: vec![7; proto::token::SECRET_BYTES],
        };
        let token = proto::token::encode(&token).expose_secret().to_owned();
        let (tell, told) = channel();
        let state = Mutex::new(State { world, generation: 1, stream: None });
        let shared = Arc::new(Shared { authority, gateway: address.to_string(), state, told: tell });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(service::serve(listener, acceptor, shared.clone()));
        Ok(Self { shared, told, acked: Cell::new((0, Instant::now())), token, _runtime: runtime })
    }

    /// What a host joins with.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Changes the world and streams the difference; returns the new generation.
    pub(super) fn change(&self, change: impl FnOnce(&mut World) -> proto::v1::ResourceSet) -> Result<u64> {
        let mut state = self.shared.state();
        let set = change(&mut state.world);
        let base = state.generation;
        state.generation += 1;
        let update = Update {
            generation: Some(generation(state.generation)),
            base: Some(generation(base)),
            last: true,
            parts: vec![set.encode_to_vec().into()],
            continues: false,
        };
        let stream = state.stream.as_ref().context("no agent is connected")?;
        stream.send(Ok(message(update))).context("the agent's stream has ended")?;
        Ok(state.generation)
    }

    /// Waits until the agent acknowledged this generation or a later one; returns when.
    pub(super) fn wait_ack(&self, generation: u64, limit: Duration) -> Result<Instant> {
        let until = Instant::now() + limit;
        loop {
            let (acked, at) = self.acked.get();
            if acked >= generation {
                return Ok(at);
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(told) if !told.refused.is_empty() => {
                    bail!("generation {} is not in force: {}", told.generation, told.refused)
                }
                Ok(told) => self.acked.set((told.generation, told.at)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    bail!("generation {generation} was not acknowledged within {limit:?}")
                }
            }
        }
    }

    /// The newest generation.
    pub(super) fn generation(&self) -> u64 {
        self.shared.state().generation
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, csr: &[u8], id: &SpiffeId) -> Result<Vec<Vec<u8>>> {
        let csr = CheckedCsr::from_der(csr)?;
        let issued = self.authority.issue(&csr, id, now()?, LIFETIME)?;
        Ok(issued.chain.iter().map(|certificate| certificate.to_vec()).collect())
    }
}

fn generation(counter: u64) -> Generation {
    Generation { incarnation: INCARNATION, counter, origin: 0 }
}

fn message(update: Update) -> GatewayMessage {
    GatewayMessage { message: Some(gateway_message::Message::Update(update)) }
}

fn now() -> Result<pki::UnixTime> {
    pki::system_time().current_time().context("no clock")
}

/// A key of the double itself with its certificate, the root at the end.
fn own(authority: &Authority, domain: &TrustDomain) -> Result<(KeyPair, Vec<pki::CertificateDer<'static>>)> {
    let key = KeyPair::generate()?;
    let csr = CheckedCsr::from_der(&key.request()?)?;
    let issued = authority.issue(&csr, &SpiffeId::gateway(domain, "double")?, now()?, LIFETIME)?;
    let mut chain = issued.chain;
    chain.push(authority.certificate().clone());
    Ok((key, chain))
}
