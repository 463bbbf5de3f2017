//! The types of values that more than one daemon has: each refuses what is invalid, saying which value and why.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A text that is not `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is `host:port`, an IPv6 address in brackets")]
pub struct InvalidHostPort;

/// Where a gateway is reached: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort(String);

impl HostPort {
    /// The host: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidHostPort)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_fits = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
            }
        };
        let port_fits = port.parse::<u16>().is_ok_and(|port| port != 0);
        if host_fits && port_fits { Ok(Self(text.to_owned())) } else { Err(InvalidHostPort) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A list: a sequence in the file, separated by commas in a flag or variable. An empty text is an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let parse = |item: &str| item.parse().map_err(|error: T::Err| format!("`{item}`: {error}"));
        items.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<Item<T>>::deserialize(deserializer)?;
        Ok(Self(items.into_iter().map(|Item(item)| item).collect()))
    }
}

/// One item of a [`List`] in a file: refused at its own position.
struct Item<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|error: T::Err| D::Error::custom(format!("`{text}`: {error}")))
    }
}

/// Reads a scalar by its `FromStr`, with the value in the error.
///
/// # Errors
/// The value's own, and that of a scalar that is no text.
pub fn text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: T::Err| D::Error::custom(format!("`{text}`: {error}")))
}
