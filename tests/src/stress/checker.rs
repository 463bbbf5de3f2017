//! The judge: which generations could have decided over a packet, and whether any of them explains what happened to
//! it. Pure: what was published, acknowledged, sent and received goes in with its times, findings come out.
//!
//! A delivered packet must, at each enforcement point it passed, be allowed by a revision in the window from the last
//! one acknowledged before it was sent to the last one published before it was received. A lost packet must be denied
//! somewhere by a revision in that window, or be one of those that a drop counter excuses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long after it was sent a packet may still be decided over.
pub const UNDER_WAY_NS: u64 = 500_000_000;

/// The number of a revision of the source, in the order of their publication; every enforcement point begins with 0.
pub type Revision = usize;

/// A flow, and the enforcement points on its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// For people.
    pub name: String,
    /// Indices of enforcement points, in the order in which a packet passes them.
    pub points: Vec<usize>,
    /// Whether losses count: those of a stream are repaired by its protocol.
    pub lossless: bool,
}

/// A packet, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Packet {
    /// Index of its flow.
    pub flow: usize,
    /// Its number in the flow.
    pub number: u64,
    /// When it was handed to the kernel, not later.
    pub sent_ns: u64,
    /// When it was received, not earlier; `None` if it was not.
    pub received_ns: Option<u64>,
}

/// Losses that a counter admits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// What counted.
    pub reason: String,
    /// When the counter had its old value.
    pub from_ns: u64,
    /// When it had the new one.
    pub to_ns: u64,
    /// The difference.
    pub packets: u64,
}

/// What is known about a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// Some revision of the window explains it; `sharp` if all of them do.
    Explained {
        /// Whether no other outcome could have been explained.
        sharp: bool,
    },
    /// It was lost, and a counter admits that.
    Excused(String),
    /// It was delivered, and this enforcement point had to drop it.
    WronglyAllowed {
        /// Index of the enforcement point.
        point: usize,
    },
    /// It was lost, and every enforcement point had to let it pass.
    WronglyDropped,
}

/// A packet that nothing explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The packet.
    pub packet: Packet,
    /// What is wrong.
    pub judgement: Judgement,
    /// First and last revision that could have decided, for each enforcement point of the path.
    pub windows: Vec<(Revision, Revision)>,
}

/// An enforcement point of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// Its number.
    pub point: usize,
    /// Number, time of publication and verdict of the revisions in and around the window.
    pub revisions: Vec<(Revision, u64, bool)>,
    /// When which revision was seen to be acknowledged, around that time.
    pub acknowledged: Vec<(u64, Revision)>,
}

/// What was judged so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Packets judged.
    pub packets: u64,
    /// Of these, delivered.
    pub delivered: u64,
    /// Packets of which only one outcome could have been explained.
    pub sharp: u64,
    /// Delivered although no generation allowed it.
    pub wrongly_allowed: u64,
    /// Lost although no generation denied it and nothing counted it.
    pub wrongly_dropped: u64,
    /// Lost and excused, by reason.
    pub excused: BTreeMap<String, u64>,
}

/// Everything that decides what is explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checker {
    /// The flows.
    pub paths: Vec<Path>,
    /// When each revision was published, not later.
    published: Vec<u64>,
    /// For each revision, flow and place on its path, whether the packet may pass.
    allowed: Vec<Vec<Vec<bool>>>,
    /// For each enforcement point, when which revision was known to be acknowledged.
    acknowledged: Vec<Vec<(u64, Revision)>>,
    excuses: Vec<Excuse>,
    /// The sum.
    pub tally: Tally,
}

impl Checker {
    /// A checker of these flows through so many enforcement points; all of these run revision 0, which allows `first`.
    #[must_use]
    pub fn new(paths: Vec<Path>, points: usize, first: Vec<Vec<bool>>) -> Self {
        Self {
            paths,
            published: vec![0],
            allowed: vec![first],
            acknowledged: vec![Vec::new(); points],
            excuses: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// The next revision is about to be published. Returns its number.
    pub fn publish(&mut self, at_ns: u64, allowed: Vec<Vec<bool>>) -> Revision {
        self.published.push(at_ns);
        self.allowed.push(allowed);
        self.published.len() - 1
    }

    /// An enforcement point was seen to have acknowledged a revision. It never goes back: an older one is no news.
    pub fn acknowledge(&mut self, point: usize, at_ns: u64, revision: Revision) {
        let Some(acks) = self.acknowledged.get_mut(point) else { return };
        if acks.last().is_none_or(|(_, last)| *last < revision) {
            acks.push((at_ns, revision));
        }
    }

    /// A counter admits losses.
    pub fn excuse(&mut self, excuse: Excuse) {
        self.excuses.push(excuse);
    }

    /// Whether every enforcement point was seen to have acknowledged a revision, or a later one.
    #[must_use]
    pub fn all_have(&self, revision: Revision) -> bool {
        self.acknowledged.iter().all(|acks| acks.last().is_some_and(|(_, last)| *last >= revision))
    }

    /// How many revisions each enforcement point was seen to acknowledge.
    #[must_use]
    pub fn acknowledgements(&self) -> Vec<usize> {
        self.acknowledged.iter().map(Vec::len).collect()
    }

    /// The newest revision.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.published.len() - 1
    }

    /// What a finding was made of.
    #[must_use]
    pub fn circumstances(&self, finding: &Finding) -> Vec<Circumstances> {
        let flow = finding.packet.flow;
        let points = self.paths.get(flow).map(|path| path.points.as_slice()).unwrap_or_default();
        let of = |(hop, (point, (first, last))): (usize, (&usize, &(Revision, Revision)))| {
            // With some before and after: a window that is too small shows.
            let revisions = first.saturating_sub(3)..=(last + 3).min(self.newest());
            let revisions = revisions.filter_map(|revision| {
                let verdict = self.allowed.get(revision)?.get(flow)?.get(hop)?;
                Some((revision, *self.published.get(revision)?, *verdict))
            });
            let acks = self.acknowledged.get(*point).map(Vec::as_slice).unwrap_or_default();
            let near = acks.partition_point(|(at, _)| *at <= finding.packet.sent_ns);
            let acknowledged = acks.iter().skip(near.saturating_sub(3)).take(6).copied().collect();
            Circumstances { point: *point, revisions: revisions.collect(), acknowledged }
        };
        points.iter().zip(&finding.windows).enumerate().map(of).collect()
    }

    /// Judges a packet and counts it. A finding if nothing explains it.
    pub fn judge(&mut self, packet: Packet) -> Option<Finding> {
        let windows = self.windows(&packet);
        let judgement = self.decide(&packet, &windows);
        self.count(&packet, &judgement);
        match judgement {
            Judgement::Explained { .. } | Judgement::Excused(_) => None,
            Judgement::WronglyAllowed { .. } | Judgement::WronglyDropped => {
                Some(Finding { packet, judgement, windows })
            }
        }
    }

    fn decide(&mut self, packet: &Packet, windows: &[(Revision, Revision)]) -> Judgement {
        let Some(path) = self.paths.get(packet.flow) else { return Judgement::Explained { sharp: false } };
        let points = path.points.clone();
        let lossless = path.lossless;
        let hops: Vec<(bool, bool)> = windows
            .iter()
            .enumerate()
            .map(|(hop, window)| self.verdicts(packet.flow, hop, *window))
            .collect();
        let must_pass = hops.iter().all(|(_, may_drop)| !may_drop);
        let barred = hops.iter().position(|(may_pass, _)| !may_pass);
        if packet.received_ns.is_some() {
            return match barred.and_then(|hop| points.get(hop)) {
                Some(&point) => Judgement::WronglyAllowed { point },
                None => Judgement::Explained { sharp: must_pass },
            };
        }
        if !must_pass || !lossless {
            return Judgement::Explained { sharp: barred.is_some() };
        }
        let (from, to) = (packet.sent_ns, packet.sent_ns + UNDER_WAY_NS);
        let excuse = self
            .excuses
            .iter_mut()
            .find(|excuse| excuse.packets > 0 && excuse.from_ns <= to && excuse.to_ns >= from);
        match excuse {
            Some(excuse) => {
                excuse.packets -= 1;
                Judgement::Excused(excuse.reason.clone())
            }
            None => Judgement::WronglyDropped,
        }
    }

    /// Whether some revision of a window lets the packet pass, and whether some drops it.
    fn verdicts(&self, flow: usize, hop: usize, (first, last): (Revision, Revision)) -> (bool, bool) {
        let revisions = self.allowed.get(first..=last).unwrap_or_default();
        let verdict = |revision: &Vec<Vec<bool>>| revision.get(flow).and_then(|hops| hops.get(hop)).copied();
        let any = |wanted| revisions.iter().any(|revision| verdict(revision) == Some(wanted));
        (any(true), any(false))
    }

    fn windows(&self, packet: &Packet) -> Vec<(Revision, Revision)> {
        let until = packet.received_ns.unwrap_or(packet.sent_ns + UNDER_WAY_NS);
        let last = self.published.partition_point(|at| *at <= until).saturating_sub(1);
        let points = self.paths.get(packet.flow).map(|path| path.points.as_slice()).unwrap_or_default();
        let first = |point: &usize| {
            let acks = self.acknowledged.get(*point).map(Vec::as_slice).unwrap_or_default();
            let known = acks.partition_point(|(at, _)| *at <= packet.sent_ns);
            known.checked_sub(1).and_then(|at| acks.get(at)).map_or(0, |(_, revision)| *revision)
        };
        points.iter().map(|point| (first(point).min(last), last)).collect()
    }

    fn count(&mut self, packet: &Packet, judgement: &Judgement) {
        let tally = &mut self.tally;
        tally.packets += 1;
        tally.delivered += u64::from(packet.received_ns.is_some());
        match judgement {
            Judgement::Explained { sharp } => tally.sharp += u64::from(*sharp),
            Judgement::Excused(reason) => *tally.excused.entry(reason.clone()).or_default() += 1,
            Judgement::WronglyAllowed { .. } => tally.wrongly_allowed += 1,
            Judgement::WronglyDropped => tally.wrongly_dropped += 1,
        }
    }
}

impl Tally {
    /// Whether everything was explained.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.wrongly_allowed == 0 && self.wrongly_dropped == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// One flow through a sender's and a receiver's enforcement point; a revision is what both say.
    fn checker(first: [bool; 2]) -> Checker {
        let path = Path { name: "a to b".to_owned(), points: vec![0, 1], lossless: true };
        Checker::new(vec![path], 2, vec![first.to_vec()])
    }

    fn packet(sent_ns: u64, received_ns: Option<u64>) -> Packet {
        Packet { flow: 0, number: 0, sent_ns, received_ns }
    }

    fn judged(checker: &mut Checker, sent: u64, received: Option<u64>) -> Option<Judgement> {
        checker.judge(packet(sent, received)).map(|finding| finding.judgement)
    }

    #[test]
    fn what_no_generation_of_the_window_allows_is_wrongly_allowed() {
        let mut checker = checker([true, true]);
        checker.publish(10 * SECOND, vec![vec![true, false]]);
        checker.acknowledge(1, 11 * SECOND, 1);
        assert_eq!(
            judged(&mut checker, 12 * SECOND, Some(12 * SECOND + 5)),
            Some(Judgement::WronglyAllowed { point: 1 })
        );
        assert_eq!(checker.tally.wrongly_allowed, 1);
    }

    #[test]
    fn until_the_denial_is_acknowledged_both_outcomes_are_explained() {
        let mut checker = checker([true, true]);
        checker.publish(10 * SECOND, vec![vec![true, false]]);
        checker.acknowledge(1, 11 * SECOND, 1);
        assert_eq!(judged(&mut checker, 11 * SECOND - 1, Some(11 * SECOND + 9)), None);
        assert_eq!(judged(&mut checker, 10 * SECOND + 1, None), None);
        assert_eq!(checker.tally.sharp, 0);
    }

    #[test]
    fn a_packet_on_its_way_when_the_denial_was_published_may_be_lost_and_one_before_it_may_not() {
        let mut checker = checker([true, true]);
        checker.publish(10 * SECOND, vec![vec![false, true]]);
        assert_eq!(judged(&mut checker, 10 * SECOND - 1, None), None);
        let long_before = 10 * SECOND - UNDER_WAY_NS - 1;
        assert_eq!(judged(&mut checker, long_before, None), Some(Judgement::WronglyDropped));
    }

    #[test]
    fn what_every_generation_of_the_window_allows_is_wrongly_dropped() {
        let mut checker = checker([true, true]);
        checker.publish(10 * SECOND, vec![vec![true, true]]);
        assert_eq!(judged(&mut checker, 12 * SECOND, None), Some(Judgement::WronglyDropped));
        assert_eq!(judged(&mut checker, 12 * SECOND, Some(12 * SECOND)), None);
        assert_eq!((checker.tally.wrongly_dropped, checker.tally.sharp), (1, 1));
    }

    #[test]
    fn a_generation_that_allows_before_it_was_published_explains_nothing() {
        let mut checker = checker([true, false]);
        checker.publish(10 * SECOND, vec![vec![true, true]]);
        assert_eq!(
            judged(&mut checker, 9 * SECOND, Some(10 * SECOND - 1)),
            Some(Judgement::WronglyAllowed { point: 1 })
        );
        assert_eq!(judged(&mut checker, 9 * SECOND, Some(10 * SECOND)), None);
    }

    #[test]
    fn each_point_has_a_window_of_its_own() {
        let mut checker = checker([true, true]);
        checker.publish(10 * SECOND, vec![vec![false, false]]);
        // Only the sender has confirmed: whatever the receiver does, nothing may come through.
        checker.acknowledge(0, 11 * SECOND, 1);
        assert_eq!(
            judged(&mut checker, 12 * SECOND, Some(13 * SECOND)),
            Some(Judgement::WronglyAllowed { point: 0 })
        );
    }

    #[test]
    fn a_swap_that_is_not_atomic_is_found_although_every_generation_agrees() {
        // Both revisions allow; nothing else can be explained, however wide the window is.
        let mut checker = checker([true, true]);
        for second in 1..20 {
            checker.publish(second * SECOND, vec![vec![true, true]]);
        }
        assert_eq!(judged(&mut checker, 20 * SECOND, None), Some(Judgement::WronglyDropped));
    }

    #[test]
    fn an_older_acknowledgement_is_no_news() {
        let mut checker = checker([true, true]);
        checker.publish(SECOND, vec![vec![true, false]]);
        checker.acknowledge(1, 2 * SECOND, 1);
        checker.acknowledge(1, 3 * SECOND, 0);
        assert_eq!(
            judged(&mut checker, 4 * SECOND, Some(4 * SECOND)),
            Some(Judgement::WronglyAllowed { point: 1 })
        );
    }

    #[test]
    fn a_counter_excuses_as_many_losses_as_it_counted_at_that_time() {
        let mut checker = checker([true, true]);
        let reason = "flow_table_full".to_owned();
        checker.excuse(Excuse { reason: reason.clone(), from_ns: SECOND, to_ns: 2 * SECOND, packets: 1 });
        assert_eq!(judged(&mut checker, 5 * SECOND, None), Some(Judgement::WronglyDropped));
        assert_eq!(judged(&mut checker, SECOND, None), None);
        assert_eq!(judged(&mut checker, SECOND, None), Some(Judgement::WronglyDropped));
        assert_eq!(checker.tally.excused, BTreeMap::from([(reason, 1)]));
    }

    #[test]
    fn losses_of_a_stream_are_its_own_business_and_its_deliveries_are_not() {
        let mut checker = checker([true, true]);
        checker.paths[0].lossless = false;
        assert_eq!(judged(&mut checker, SECOND, None), None);
        checker.publish(2 * SECOND, vec![vec![false, true]]);
        checker.acknowledge(0, 3 * SECOND, 1);
        assert!(judged(&mut checker, 4 * SECOND, Some(5 * SECOND)).is_some());
    }
}
