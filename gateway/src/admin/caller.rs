//! Who calls the administration, and whether they may.

use std::fmt;

use nix::unistd::geteuid;
use pki::UnixTime;
use tonic::Extensions;
use tonic::transport::server::UdsConnectInfo;

use crate::tls::PeerIdentity;

/// Somebody who may administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A process on this machine, root's or the gateway's own user's, as the kernel says.
    Socket {
        /// Its user.
        uid: u32,
    },
    /// The holder of an administrator's certificate.
    Certificate {
        /// The administrator's name.
        name: String,
    },
}

/// Somebody who may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Whom it claims to be.
    pub(super) peer: String,
    /// Where it calls from.
    pub(super) remote: String,
    /// Why not.
    pub(super) reason: &'static str,
}

impl Caller {
    pub(super) fn of(extensions: &Extensions, now: UnixTime) -> Result<Self, Refused> {
        if let Some(socket) = extensions.get::<UdsConnectInfo>() {
            let uid = socket.peer_cred.map(|process| process.uid());
            return Self::of_uid(uid, geteuid().as_raw());
        }
        let peer = extensions.get::<PeerIdentity>();
        let refused = |reason| Refused {
            peer: peer.and_then(PeerIdentity::spiffe_id).map(ToString::to_string).unwrap_or_default(),
            remote: peer.map(|peer| peer.remote.ip().to_string()).unwrap_or_default(),
            reason,
        };
        let name = peer.and_then(PeerIdentity::admin);
        match (name, peer) {
            (Some(_), Some(peer)) if peer.expired(now) => {
                Err(refused("the administrator's certificate has expired: issue another with `admin issue`"))
            }
            (Some(name), _) => Ok(Self::Certificate { name: name.to_owned() }),
            (None, _) => {
                Err(refused("administration needs the unix socket or an administrator's certificate"))
            }
        }
    }

    fn of_uid(uid: Option<u32>, own: u32) -> Result<Self, Refused> {
        match uid {
            Some(uid) if uid == 0 || uid == own => Ok(Self::Socket { uid }),
            other => Err(Refused {
                peer: other.map_or_else(|| "unknown user".to_owned(), |uid| format!("uid {uid}")),
                remote: "unix socket".to_owned(),
                reason: "administration over the socket is for root and the gateway's user only",
            }),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { uid } => write!(f, "uid {uid}"),
            Self::Certificate { name } => write!(f, "admin {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_may_use_the_socket() {
        assert_eq!(Caller::of_uid(Some(0), 990), Ok(Caller::Socket { uid: 0 }));
        assert_eq!(Caller::of_uid(Some(990), 990), Ok(Caller::Socket { uid: 990 }));
        assert!(Caller::of_uid(Some(1000), 990).is_err());
        assert!(Caller::of_uid(None, 0).is_err());
    }

    #[test]
    fn who_shows_nothing_may_nothing() {
        assert!(Caller::of(&Extensions::new(), crate::store::unix_time(0)).is_err());
        let mut extensions = Extensions::new();
        extensions.insert(PeerIdentity {
            svid: None,
            remote: "192.0.2.1:1".parse().unwrap(),
            by_proxy: false,
            cut: crate::tls::Cut::default(),
        });
        let refused = Caller::of(&extensions, crate::store::unix_time(0)).unwrap_err();
        assert_eq!(refused.remote, "192.0.2.1");
    }
}
