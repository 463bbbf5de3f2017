//! SPIFFE ids of the mesh. Only three shapes exist; everything else is refused, and every name is checked before it
//! becomes part of an id, so that no name can pose as another path.

use std::fmt;
use std::str::FromStr;

/// The name of a trust domain, `outrigger.local`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

/// Whom a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    principal: Principal,
}

/// The path of a [`SpiffeId`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// `/ns/<namespace>/ew/<name>`: an external workload, transit nodes among them.
    Workload {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `/gateway/<name>`: a gateway.
    Gateway {
        /// Its name.
        name: String,
    },
    /// `/admin/<name>`: an administrator of the gateway.
    Admin {
        /// The administrator's name.
        name: String,
    },
}

/// A text that is no SPIFFE id of this mesh, or a name that cannot be part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// The trust domain has a wrong form.
    #[error(
        "trust domain {0:?} is invalid: 1 to 255 lower-case letters, digits, '.', '-' or '_', beginning and ending with a letter or digit"
    )]
    TrustDomain(String),
    /// A namespace is no DNS-1123 label.
    #[error(
        "namespace {0:?} is invalid: 1 to 63 lower-case letters, digits or '-', beginning and ending with a letter or digit"
    )]
    Namespace(String),
    /// A name is no DNS-1123 subdomain.
    #[error(
        "name {0:?} is invalid: 1 to 253 lower-case letters, digits, '-' or '.', each part beginning and ending with a letter or digit"
    )]
    Name(String),
    /// The URI is not `spiffe://…`.
    #[error("{0:?} is no SPIFFE id")]
    Scheme(String),
    /// The path is none of the known ones.
    #[error("SPIFFE id {0:?} names neither a workload nor a gateway nor an administrator")]
    Path(String),
}

impl TrustDomain {
    /// Checks the name.
    ///
    /// # Errors
    /// [`InvalidSpiffeId::TrustDomain`] where it has a wrong form.
    pub fn try_new(name: &str) -> Result<Self, InvalidSpiffeId> {
        let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = name.as_bytes();
        let inside = bytes.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        if bytes.len() <= 255 && inside && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidSpiffeId::TrustDomain(name.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_new(name)
    }
}

impl SpiffeId {
    /// The id of an external workload.
    ///
    /// # Errors
    /// [`InvalidSpiffeId`] where a name has a wrong form.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        name: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        if !is_dns1123_label(namespace) {
            return Err(InvalidSpiffeId::Namespace(namespace.to_owned()));
        }
        let name = checked_name(name)?;
        let principal = Principal::Workload { namespace: namespace.to_owned(), name };
        Ok(Self { trust_domain: trust_domain.clone(), principal })
    }

    /// The id of a gateway.
    ///
    /// # Errors
    /// [`InvalidSpiffeId`] where the name has a wrong form.
    pub fn gateway(trust_domain: &TrustDomain, name: &str) -> Result<Self, InvalidSpiffeId> {
        let principal = Principal::Gateway { name: checked_name(name)? };
        Ok(Self { trust_domain: trust_domain.clone(), principal })
    }

    /// The id of an administrator.
    ///
    /// # Errors
    /// [`InvalidSpiffeId`] where the name has a wrong form.
    pub fn admin(trust_domain: &TrustDomain, name: &str) -> Result<Self, InvalidSpiffeId> {
        let principal = Principal::Admin { name: checked_name(name)? };
        Ok(Self { trust_domain: trust_domain.clone(), principal })
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whom it names.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/", self.trust_domain)?;
        match &self.principal {
            Principal::Workload { namespace, name } => write!(f, "ns/{namespace}/ew/{name}"),
            Principal::Gateway { name } => write!(f, "gateway/{name}"),
            Principal::Admin { name } => write!(f, "admin/{name}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| InvalidSpiffeId::Scheme(uri.to_owned()))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| InvalidSpiffeId::Path(uri.to_owned()))?;
        let domain = TrustDomain::try_new(domain)?;
        let segments: Vec<&str> = path.split('/').collect();
        match segments.as_slice() {
            ["ns", namespace, "ew", name] => Self::workload(&domain, namespace, name),
            ["gateway", name] => Self::gateway(&domain, name),
            ["admin", name] => Self::admin(&domain, name),
            _ => Err(InvalidSpiffeId::Path(uri.to_owned())),
        }
    }
}

/// Whether a text is a DNS-1123 label, the form of a namespace's name.
#[must_use]
pub fn is_dns1123_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |c: Option<&u8>| c.is_some_and(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9'));
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Whether a text is a DNS-1123 subdomain, the form of an object's name.
#[must_use]
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns1123_label)
}

fn checked_name(name: &str) -> Result<String, InvalidSpiffeId> {
    if is_dns1123_subdomain(name) { Ok(name.to_owned()) } else { Err(InvalidSpiffeId::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::try_new("outrigger.local").unwrap()
    }

    #[test]
    fn ids_survive_their_text_form() {
        for id in [
            SpiffeId::workload(&domain(), "payments", "db-1.example.com").unwrap(),
            SpiffeId::gateway(&domain(), "g1").unwrap(),
            SpiffeId::admin(&domain(), "ops").unwrap(),
        ] {
            assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }
        assert_eq!(
            SpiffeId::workload(&domain(), "payments", "db").unwrap().to_string(),
            "spiffe://outrigger.local/ns/payments/ew/db"
        );
    }

    #[test]
    fn names_cannot_become_paths() {
        for name in
            ["", "a/ew/b", "..", "A", "a_b", "-a", "a-", "a..b", "a%2fb", "a b", "ä", &"a".repeat(254)]
        {
            assert!(SpiffeId::workload(&domain(), "ns", name).is_err(), "{name}");
            assert!(SpiffeId::admin(&domain(), name).is_err(), "{name}");
        }
        for namespace in ["", "a.b", "a/b", "A", &"a".repeat(64)] {
            assert!(SpiffeId::workload(&domain(), namespace, "n").is_err(), "{namespace}");
        }
    }

    #[test]
    fn other_uris_are_refused() {
        for uri in [
            "https://outrigger.local/gateway/g",
            "SPIFFE://outrigger.local/gateway/g",
            "spiffe://outrigger.local",
            "spiffe://outrigger.local/",
            "spiffe://outrigger.local/gateway",
            "spiffe://outrigger.local/gateway/",
            "spiffe://outrigger.local/gateway/g/",
            "spiffe://outrigger.local//gateway/g",
            "spiffe://outrigger.local/ns/a/sa/b",
            "spiffe://outrigger.local/ns/a/ew/b/c",
            "spiffe://outrigger.local/gateway/g?x=1",
            "spiffe://outrigger.local/gateway/g#f",
            "spiffe://user@outrigger.local/gateway/g",
            "spiffe://outrigger.local:443/gateway/g",
            "spiffe:///gateway/g",
            "spiffe://Outrigger.local/gateway/g",
        ] {
            assert!(uri.parse::<SpiffeId>().is_err(), "{uri}");
        }
    }
}
