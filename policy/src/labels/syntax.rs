//! What Kubernetes accepts as label key and value, and which keys only the gateway gives.

/// A label that nobody may give to an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// The key is not Kubernetes' syntax.
    #[error(
        "label key {0:?} is not valid: an optional DNS subdomain and '/', then up to 63 of A-Z a-z 0-9 '-' '_' '.', \
         beginning and ending alphanumeric"
    )]
    Key(String),
    /// The value is not Kubernetes' syntax.
    #[error(
        "label value {0:?} is not valid: up to 63 of A-Z a-z 0-9 '-' '_' '.', beginning and ending alphanumeric"
    )]
    Value(String),
    /// The key is one that identities use for what the cluster says.
    #[error("label key {0:?} is reserved: keys of io.kubernetes and io.cilium are given by the gateway only")]
    Reserved(String),
}

/// The domains whose keys stand for what the cluster says about an object.
const RESERVED: [&str; 2] = ["io.kubernetes", "io.cilium"];

/// Checks a label that a pod, a group or a namespace brings along: syntax, and that its key is not reserved.
///
/// # Errors
/// [`InvalidLabel`] names the key or value.
pub fn check_given(key: &str, value: &str) -> Result<(), InvalidLabel> {
    check_key(key)?;
    if is_reserved(key) {
        return Err(InvalidLabel::Reserved(key.to_owned()));
    }
    check_value(value)
}

/// Compared without case, and at `.` as at `/`: no spelling comes near a reserved key.
fn is_reserved(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    RESERVED.iter().any(|domain| {
        key.strip_prefix(domain).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    })
}

/// Checks the syntax of a key.
///
/// # Errors
/// [`InvalidLabel::Key`].
pub fn check_key(key: &str) -> Result<(), InvalidLabel> {
    let valid = match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(key),
    };
    if valid { Ok(()) } else { Err(InvalidLabel::Key(key.to_owned())) }
}

/// Checks the syntax of a value.
///
/// # Errors
/// [`InvalidLabel::Value`].
pub fn check_value(value: &str) -> Result<(), InvalidLabel> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(InvalidLabel::Value(value.to_owned())) }
}

fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether the name is a DNS subdomain (RFC 1123), as names of objects are.
#[must_use]
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|part| is_dns_label_of(part, 253))
}

/// Whether the name is a DNS label (RFC 1123), as names of namespaces are.
#[must_use]
pub fn is_dns_label(name: &str) -> bool {
    is_dns_label_of(name, 63)
}

fn is_dns_label_of(part: &str, longest: usize) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.len() <= longest
        && part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && part.chars().all(|c| alphanumeric(c) || c == '-')
}
