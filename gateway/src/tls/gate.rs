//! How many connections there may be: in all, and from one source. Where there is no room, those give way whose
//! handshake has not begun, the longest waiting first: an honest host speaks at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::Limits;

/// What is counted about connections; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    opened: Counter,
    refused: Family<Refused, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

/// Counts connections.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    metrics: ConnectionMetrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    by_source: BTreeMap<IpAddr, usize>,
    number: u64,
    /// Those whose handshake has not begun, oldest first, with what ends them.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    source: Option<IpAddr>,
    number: u64,
}

impl ConnectionMetrics {
    /// Shows the counters; refusals from 0, so that the first one is an increase too.
    pub fn register(&self, registry: &mut Registry) {
        for reason in ["accept", "handshake", "limit", "silent", "source"] {
            let _zero = self.refused.get_or_create(&Refused { reason });
        }
        let registry = registry.sub_registry_with_prefix("outrigger_gateway");
        registry.register("connections", "TLS connections, open or opening", self.open.clone());
        registry.register("connections_opened", "TLS connections since the start", self.opened.clone());
        registry.register(
            "connections_refused",
            "Connections that were closed at once or cut before TLS was set up, by reason",
            self.refused.clone(),
        );
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// How many there were since the start.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How many were refused for a reason.
    #[must_use]
    pub fn count(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&Refused { reason }).get()
    }
}

impl Gate {
    pub(super) fn new(limits: &Limits, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self { limits: limits.clone(), metrics, state: Mutex::default() })
    }

    /// Whether a source may have another connection than so many.
    fn is_full(&self, from_source: usize) -> bool {
        self.limits.per_source != 0 && from_source >= self.limits.per_source
    }

    /// Lets a connection in, in place of one that waits where there is no room; and what tells that the same happens to
    /// it. `None`: there is no room.
    pub(super) fn admit(self: &Arc<Self>, remote: IpAddr) -> Option<(Pass, oneshot::Receiver<()>)> {
        let source = source(remote).filter(|_counted| !self.limits.is_proxy(remote));
        let mut state = self.lock();
        let from_source = source.and_then(|source| state.by_source.get(&source)).copied().unwrap_or_default();
        if self.is_full(from_source) {
            self.metrics.refused("source");
            return None;
        }
        if state.open >= self.limits.connections && !self.evict(&mut state) {
            self.metrics.refused("limit");
            return None;
        }
        state.open += 1;
        state.number += 1;
        if let Some(source) = source {
            *state.by_source.entry(source).or_default() += 1;
        }
        let (evict, evicted) = oneshot::channel();
        let number = state.number;
        state.waiting.insert(number, evict);
        drop(state);
        self.metrics.open.inc();
        self.metrics.opened.inc();
        Some((Pass { gate: Arc::clone(self), source, number }, evicted))
    }

    /// Makes room where the machine has none.
    pub(super) fn make_room(&self) {
        self.evict(&mut self.lock());
    }

    /// Ends the connection that has waited longest.
    fn evict(&self, state: &mut State) -> bool {
        while let Some((_, evict)) = state.waiting.pop_first() {
            if evict.send(()).is_ok() {
                self.metrics.refused("silent");
                return true;
            }
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The handshake begins: from now on nobody takes its place.
    pub(super) fn begins(&self) {
        self.gate.lock().waiting.remove(&self.number);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.open -= 1;
        state.waiting.remove(&self.number);
        if let Some(source) = self.source
            && let Some(count) = state.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                state.by_source.remove(&source);
            }
        }
        drop(state);
        self.gate.metrics.open.dec();
    }
}

/// What counts as one source: an IPv4 address, or the IPv6 network of one host. Loopback is this machine, and counts
/// for none.
fn source(remote: IpAddr) -> Option<IpAddr> {
    let remote = remote.to_canonical();
    if remote.is_loopback() {
        return None;
    }
    Some(match remote {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_cannot_take_the_room_of_others() {
        let metrics = ConnectionMetrics::default();
        let proxies = vec!["192.0.2.9/32".parse().unwrap()];
        let limits = Limits { connections: 10, per_source: 2, proxies, ..Limits::default() };
        let gate = Gate::new(&limits, metrics.clone());
        let mut passes = Vec::new();
        for remote in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"] {
            passes.push(gate.admit(at(remote)).unwrap());
        }
        assert!(gate.admit(at("192.0.2.1")).is_none());
        assert!(gate.admit(at("2001:db8::3")).is_none());
        assert!(gate.admit(at("2001:db8:0:1::1")).is_some());
        assert_eq!(metrics.count("source"), 2);
        passes.clear();
        assert!(gate.admit(at("192.0.2.1")).is_some());
        assert!(gate.lock().by_source.is_empty());
        for remote in ["127.0.0.1", "::ffff:192.0.2.9"] {
            let many: Vec<_> = (0..10).map(|_| gate.admit(at(remote)).unwrap()).collect();
            assert_eq!((many.len(), metrics.open.get()), (10, 10), "{remote}");
        }
    }

    #[test]
    fn whoever_waits_longest_makes_room_and_who_has_begun_stays() {
        let metrics = ConnectionMetrics::default();
        let limits = Limits { connections: 3, per_source: 0, ..Limits::default() };
        let gate = Gate::new(&limits, metrics.clone());
        let (speaking, mut kept) = gate.admit(at("192.0.2.1")).unwrap();
        speaking.begins();
        let (_silent, mut evicted) = gate.admit(at("192.0.2.2")).unwrap();
        let (_later, mut waiting) = gate.admit(at("192.0.2.3")).unwrap();
        let (newest, _) = gate.admit(at("192.0.2.4")).unwrap();
        assert!(evicted.try_recv().is_ok());
        assert!(kept.try_recv().is_err() && waiting.try_recv().is_err());
        assert_eq!((metrics.count("silent"), metrics.count("limit")), (1, 0));
        newest.begins();
        drop(waiting);
        // Nobody is left that could give way.
        assert!(gate.admit(at("192.0.2.5")).is_none());
        assert_eq!(metrics.count("limit"), 1);
    }
}
