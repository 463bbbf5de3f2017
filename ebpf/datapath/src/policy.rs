//! Policy: what the rules say about a flow.

use crate::{
    Action, Address, Direction, Port, Tables,
    abi::{Bank, CidrKey, ClassKey, PolicyEntry, PolicyKey, Settings, settings_flag},
};

/// The facts about a flow that policy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// The remote's address.
    pub remote: Address,
    /// The remote's identity, from the table.
    pub identity: u32,
    /// The destination port of the flow's opener.
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

/// Of all entries for the remote's classes, the protocol and every protocol: the highest precedence decides, deny
/// wins a tie, and the default of the direction answers when there is none. Returns whether the flow is allowed.
#[inline(never)]
pub fn ask<T: Tables>(
    tables: &T,
    bank: Bank,
    settings: &Settings,
    question: &Question,
    answer: &mut Answer,
) -> bool {
    let by_identity =
        tables.class(&ClassKey { bank: bank.number(), reserved: [0; 3], identity: question.identity });
    let mut best = Best { weight: 0, answer: default(settings, question.direction) };
    consider(tables, bank, settings, question, by_identity, &mut best);
    if settings.flags & settings_flag::CIDR_RULES != 0 {
        let by_address = tables.cidr_class(&CidrKey {
            prefix_len: CidrKey::BASE_BITS + 128,
            bank: bank.number(),
            reserved: [0; 3],
            address: question.remote,
        });
        if by_address != 0 {
            consider(tables, bank, settings, question, by_address, &mut best);
        }
    }
    *answer = best.answer;
    answer.allowed != 0
}

struct Best {
    /// One more than the precedence of the entry that wins so far; 0 = none matched.
    weight: u64,
    answer: Answer,
}

#[inline(always)]
fn default(settings: &Settings, direction: Direction) -> Answer {
    let (action, rule) = match direction {
        Direction::Ingress => (settings.ingress_default, settings.ingress_rule),
        Direction::Egress => (settings.egress_default, settings.egress_rule),
    };
    Answer { rule, allowed: u32::from(action == Action::Allow.number()) }
}

#[inline(always)]
fn consider<T: Tables>(
    tables: &T,
    bank: Bank,
    settings: &Settings,
    question: &Question,
    class: u32,
    best: &mut Best,
) {
    let mut key = PolicyKey {
        prefix_len: PolicyKey::BASE_BITS + 16,
        bank: bank.number(),
        direction: question.direction.number(),
        protocol: question.protocol,
        reserved: 0,
        class,
        port: question.port,
        padding: [0; 2],
    };
    weigh(tables.policy(&key), best);
    if settings.flags & settings_flag::PROTOCOLS_NAMED == 0 {
        key.protocol = PolicyKey::ANY_PROTOCOL;
        weigh(tables.policy(&key), best);
    }
}

#[inline(always)]
fn weigh(entry: Option<&PolicyEntry>, best: &mut Best) {
    let Some(entry) = entry else { return };
    let allowed = u32::from(entry.action == Action::Allow.number());
    let weight = u64::from(entry.precedence) + 1;
    if weight > best.weight || (weight == best.weight && allowed < best.answer.allowed) {
        best.weight = weight;
        best.answer = Answer { rule: entry.rule, allowed };
    }
}

#[cfg(test)]
mod tests;
