//! Named ports, as pods and groups declare them.

use serde::Deserialize;

use super::decode::InvalidField;
use super::node::Node;

/// The protocols a port may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Protocol {
    /// TCP, also where none is given.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Checks a port's name as Kubernetes does (`IANA_SVC_NAME`), so that no port number can pass for one.
///
/// # Errors
/// [`InvalidField`] of `name` in the node.
pub(super) fn check_name(node: &Node, name: &str) -> Result<(), InvalidField> {
    let valid = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if valid {
        return Ok(());
    }
    let message = format!("{name:?} is no port name: up to 15 of a-z, 0-9 and '-', with at least one letter");
    Err(InvalidField::new(node.get("name").unwrap_or(node), "name", message))
}

/// Checks that a port is one.
///
/// # Errors
/// [`InvalidField`] of `field` in the node.
pub(super) fn check_number(node: &Node, field: &str, port: u16) -> Result<(), InvalidField> {
    if port == 0 {
        return Err(InvalidField::new(node.get(field).unwrap_or(node), field, "0 is no port: 1 to 65535"));
    }
    Ok(())
}
