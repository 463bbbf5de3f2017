//! Which names a mapping may have: also those that mean something to Kubernetes and nothing here.

use super::decode::{InvalidField, Step};
use super::node::{Node, Value};

/// Refuses the first name that is not among the known ones.
///
/// # Errors
/// [`InvalidField`] naming it, its line and its value.
pub(super) fn only(node: &Node, known: &[&str]) -> Result<(), InvalidField> {
    let Value::Mapping(entries) = &node.value else { return Ok(()) };
    match entries.iter().find(|entry| !known.contains(&entry.name.as_str())) {
        None => Ok(()),
        Some(entry) => Err(InvalidField {
            position: entry.position,
            field: entry.name.clone(),
            message: format!("unknown field, with value {}", entry.value.preview()),
        }),
    }
}

/// [`only`] for the value of a name, where there is one.
///
/// # Errors
/// As [`only`].
pub(super) fn only_in(node: &Node, name: &str, known: &[&str]) -> Result<(), InvalidField> {
    node.get(name).map_or(Ok(()), |value| {
        only(value, known).map_err(|error| error.within(Step::Field(name), value.position))
    })
}

/// Checks each item of the list of a name, where there is one.
///
/// # Errors
/// The first item's, with its place.
pub(super) fn each(
    node: &Node,
    name: &str,
    mut check: impl FnMut(usize, &Node) -> Result<(), InvalidField>,
) -> Result<(), InvalidField> {
    let Some(list) = node.get(name) else { return Ok(()) };
    let Value::Sequence(items) = &list.value else { return Ok(()) };
    for (index, item) in items.iter().enumerate() {
        check(index, item).map_err(|error| {
            error.within(Step::Item(index), item.position).within(Step::Field(name), list.position)
        })?;
    }
    Ok(())
}
