//! Compiled policies, as the specification and as the maps decide.

use datapath::Address;
use datapath::abi::Bank;
use datapath::model::Model;

use super::choices::Choices;
use super::{policies, tables};

const FLOWS: usize = 4;

/// Whatever the policy, what stands in the maps of either bank decides every flow as the specification does, names a
/// rule that decides, and lowering it again changes nothing.
///
/// # Panics
///
/// If that is not so.
pub fn lower(data: &[u8]) {
    let mut choices = Choices::new(data);
    let bank = if choices.flag() { Bank::B } else { Bank::A };
    let policy = policies::policy(&mut choices);
    let lowered = policy::lower(&policy);
    let mut model = Model::default();
    tables::fill(&mut model, bank, &lowered, [Address::NONE; 2], 256);
    for _ in 0..FLOWS {
        let flow = policies::flow(&mut choices);
        tables::agree(&policy, &lowered, &flow, tables::answer(&model, bank, &flow));
    }
    assert_eq!(policy::lower(&policy), lowered, "the same policy is lowered to something else");
}
