//! Policy: what the rules say about a flow.

use crate::{
    Action, Address, Direction, Port, Tables,
    abi::{CidrKey, ClassKey, Place, PolicyEntry, PolicyKey, Rank, Settings, settings_flag},
};

/// The identity of addresses that no endpoint has (`reserved:world`).
pub const NO_ENDPOINT: u32 = 2;

/// The facts about a flow that policy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// The remote's address.
    pub remote: Address,
    /// The remote's identity, from the table.
    pub identity: u32,
    /// The destination port of the flow's opener; of ICMP and `ICMPv6` the type of its message.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// The direction of the flow's opener.
    pub direction: Direction,
}

/// What policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Answer {
    /// The rule that decided; 0 = the default of a direction without policy.
    pub rule: u32,
    /// 1 = allowed, 0 = denied.
    pub allowed: u32,
}

/// Of all entries for the remote's classes, the protocol and every protocol, the highest rank decides. If that one
/// passes the decision on, what the entries say below their highest tier decides alike. The default of the direction
/// answers when there is none. Returns whether the flow is allowed.
#[inline(never)]
pub fn ask<T: Tables>(
    tables: &T,
    place: Place,
    settings: &Settings,
    question: &Question,
    answer: &mut Answer,
) -> bool {
    let mut best = Best::default();
    let mut class =
        tables.class(&ClassKey { bank: place.number(), reserved: [0; 3], identity: question.identity });
    let mut next = if settings.flags_of(place) & settings_flag::CIDR_RULES == 0 {
        0
    } else {
        class_of_address(tables, place, question)
    };
    // A loop, and so one key on the stack: the deepest chain of calls has none to spare.
    loop {
        consider(tables, place, settings, question, class, &mut best);
        if next == 0 {
            break;
        }
        class = next;
        next = 0;
    }
    if settings.flags_of(place) & settings_flag::PASSES != 0 && best.rank.says(Action::Pass) {
        best.rank = best.below_rank;
        best.rule = best.below_rule;
    }
    *answer = if best.rank == Rank::NONE {
        default(settings, place, question.direction)
    } else {
        Answer { rule: best.rule, allowed: u32::from(best.rank.says(Action::Allow)) }
    };
    answer.allowed != 0
}

/// What wins so far, among the entries themselves and among what they say below.
#[derive(Default)]
struct Best {
    rank: Rank,
    rule: u32,
    below_rank: Rank,
    below_rule: u32,
}

#[inline(always)]
fn class_of_address<T: Tables>(tables: &T, place: Place, question: &Question) -> u32 {
    let entry = tables.cidr(&CidrKey {
        prefix_len: CidrKey::BASE_BITS + 128,
        bank: place.number(),
        reserved: [0; 3],
        address: question.remote,
    });
    match entry {
        Some(entry) if question.identity == NO_ENDPOINT => entry.outside,
        Some(entry) => entry.class,
        None => 0,
    }
}

#[inline(always)]
fn default(settings: &Settings, place: Place, direction: Direction) -> Answer {
    let (action, rule) = settings.default_of(place, direction);
    Answer { rule, allowed: u32::from(action == Action::Allow.number()) }
}

#[inline(always)]
fn consider<T: Tables>(
    tables: &T,
    place: Place,
    settings: &Settings,
    question: &Question,
    class: u32,
    best: &mut Best,
) {
    let mut key = PolicyKey {
        prefix_len: PolicyKey::BASE_BITS + 16,
        bank: place.number(),
        direction: question.direction.number(),
        protocol: question.protocol,
        reserved: 0,
        class,
        port: question.port,
        padding: [0; 2],
    };
    best.meet(tables.policy(&key));
    if settings.flags_of(place) & settings_flag::PROTOCOLS_NAMED == 0 {
        key.protocol = PolicyKey::ANY_PROTOCOL;
        best.meet(tables.policy(&key));
    }
}

impl Best {
    #[inline(always)]
    fn meet(&mut self, entry: Option<&PolicyEntry>) {
        let Some(entry) = entry else { return };
        if entry.rank > self.rank {
            (self.rank, self.rule) = (entry.rank, entry.rule);
        }
        if entry.below_rank > self.below_rank {
            (self.below_rank, self.below_rule) = (entry.below_rank, entry.below_rule);
        }
    }
}

#[cfg(test)]
mod tests;
