//! Blocks with holes, flattened for a longest-prefix lookup.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use datapath::abi::Bank;
use datapath::model::Model;
use datapath::{Address, Direction};
use ipnet::IpNet;
use policy::evaluate::Flow;
use policy::state::{Block, DirectionPolicy, Peers, Policy, Ports, Reach, Rule, RuleAction};

use super::choices::Choices;
use super::tables;

/// Addresses that blocks are cut from, so that they nest and touch.
const BASES: [u128; 8] =
    [0, 0x0a01_0200, 0x0a01_02ff, 0xffff_ffff, 0xffff_0a01_0200, 0x2001_0db8 << 96, u128::MAX, 0xffff << 32];

/// Whatever the blocks, the longest prefix of an address tells exactly the rules whose blocks hold the address in none
/// of their holes; told by arithmetic on the bits alone.
///
/// # Panics
///
/// If that is not so.
pub fn cidr(data: &[u8]) {
    let mut choices = Choices::new(data);
    let blocks: Vec<Vec<Block>> = choices.list(4, |choices| choices.list(3, block));
    // The rules are about nothing but blocks; the first that holds an address decides.
    let rules = (0_u32..).zip(&blocks).map(|(number, blocks)| Rule {
        origin: Arc::from(format!("r{number}")),
        peers: Peers::Only { identities: Arc::default(), blocks: blocks.clone() },
        ports: Ports::Any,
        action: if number % 2 == 0 { RuleAction::Allow } else { RuleAction::Deny },
        precedence: policy::rules::precedence::NETWORK_POLICY + 9 - number,
    });
    let default = policy::state::Default::Deny { by: vec!["default".to_owned()] };
    let ingress = DirectionPolicy { default, rules: rules.collect() };
    let policy = Policy { ingress, ..Policy::unrestricted() };
    let lowered = policy::lower(&policy);
    let mut model = Model::default();
    tables::fill(&mut model, Bank::A, &lowered, [Address::NONE; 2], 256);
    for address in addresses(&blocks, &mut choices) {
        let flow =
            Flow { direction: Direction::Ingress, identity: None, remote: address, protocol: 6, port: 80 };
        let first = blocks.iter().position(|blocks| blocks.iter().any(|block| holds(block, address)));
        let answer = tables::answer(&model, Bank::A, &flow);
        let expected =
            first.map_or_else(|| "default-deny ingress (default)".to_owned(), |number| format!("r{number}"));
        assert_eq!(&*lowered.names[&answer.rule], expected, "{address} in {blocks:?}");
        assert_eq!(
            answer.allowed == 1,
            first.is_some_and(|number| number % 2 == 0),
            "{address} in {blocks:?}"
        );
    }
}

fn block(choices: &mut Choices<'_>) -> Block {
    let reach = if choices.flag() { Reach::Everyone } else { Reach::Outside };
    Block { cidr: net(choices), except: choices.list(3, net), reach }
}

fn net(choices: &mut Choices<'_>) -> IpNet {
    let base = choices.one_of(&BASES);
    let bent = base ^ (u128::from(choices.byte()) << choices.one_of(&[0, 8, 24, 32, 88, 120]));
    let length = choices.byte();
    if choices.flag() {
        IpNet::new(IpAddr::V6(Ipv6Addr::from(bent)), length % 129).unwrap()
    } else {
        IpNet::new(IpAddr::V4(v4(bent)), length % 33).unwrap()
    }
}

fn v4(bits: u128) -> Ipv4Addr {
    let [.., a, b, c, d] = bits.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// The edges of every block and hole, what touches them, and one more.
fn addresses(blocks: &[Vec<Block>], choices: &mut Choices<'_>) -> Vec<IpAddr> {
    let nets = blocks.iter().flatten().flat_map(|block| std::iter::once(&block.cidr).chain(&block.except));
    let mut addresses: Vec<IpAddr> = nets.flat_map(edges).collect();
    addresses.push(IpAddr::from(choices.bytes::<16>()));
    addresses.push(IpAddr::from(choices.bytes::<4>()));
    addresses
}

fn edges(net: &IpNet) -> [IpAddr; 4] {
    match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (u32::from(first), u32::from(last));
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|bits| Ipv4Addr::from(bits).into())
        }
        (first, last) => {
            let bits = |address: IpAddr| if let IpAddr::V6(v6) = address { u128::from(v6) } else { 0 };
            let (first, last) = (bits(first), bits(last));
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|bits| Ipv6Addr::from(bits).into())
        }
    }
}

fn holds(block: &Block, address: IpAddr) -> bool {
    within(block.cidr, address) && !block.except.iter().any(|hole| within(*hole, address))
}

/// Whether an address is in a net: as IPv4 where it is one, v4-mapped ones among them. A block of IPv6 that is larger
/// than the v4-mapped addresses holds none of them.
fn within(net: IpNet, address: IpAddr) -> bool {
    const MAPPED: u128 = 0xffff << 32;
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => MAPPED | u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let length = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 };
    let is_mapped = number(address) >> 32 == 0xffff;
    let differing = number(net.addr()) ^ number(address);
    let in_prefix = length == 0 || differing >> (128 - length) == 0;
    in_prefix && (!is_mapped || length >= 96)
}
