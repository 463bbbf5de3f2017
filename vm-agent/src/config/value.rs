//! The types of values: each refuses what is invalid, saying which value and why.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A value that a key cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Not usable in paths.
    #[error("a mesh name is 1 to 32 of a-z, 0-9 and `-`, and starts with a letter")]
    Mesh,
    /// Not a name the kernel accepts.
    #[error("a device name is 1 to 15 characters without `/`, `:` and white space, and not `.` or `..`")]
    Device,
    /// Out of range.
    #[error("an MTU is a number from 1280 (the least that IPv6 allows) to 65000")]
    Mtu,
    /// Out of range.
    #[error("seconds are a number from 2 to 3600")]
    Seconds,
}

/// The name of a mesh: part of paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeshName(String);

impl Default for MeshName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for MeshName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let first = text.starts_with(|c: char| c.is_ascii_lowercase());
        if first && text.len() <= 32 && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::Mesh)
        }
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a network device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(String);

impl Default for DeviceName {
    fn default() -> Self {
        Self("ogr0".to_owned())
    }
}

impl FromStr for DeviceName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        let reserved = text == "." || text == "..";
        if (1..=15).contains(&text.len()) && !reserved && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::Device)
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An MTU of the mesh device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u32);

impl Mtu {
    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Mtu {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(bytes @ 1280..=65_000) => Ok(Self(bytes)),
            _ => Err(InvalidValue::Mtu),
        }
    }
}

/// How long a policy is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u16);

impl Default for Seconds {
    fn default() -> Self {
        Self(30)
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(seconds.0.into())
    }
}

impl FromStr for Seconds {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(seconds @ 2..=3600) => Ok(Self(seconds)),
            _ => Err(InvalidValue::Seconds),
        }
    }
}
