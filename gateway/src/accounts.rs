//! Which cluster node asks to join: the cluster is asked whose token it has, and on which node the token's pod is. The token
//! is shown to nobody else, and kept nowhere.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::config::{Nodes, ServiceAccount};
use crate::store::Target;

/// Whom the token has to be for.
pub const AUDIENCE: &str = "outrigger";
/// Where the cluster says on which node the pod is that a token is bound to, from Kubernetes 1.30 on.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What the names of service accounts begin with where users are named.
const USER: &str = "system:serviceaccount:";
/// How long the API server may take: with what signing takes, less than agents wait for their answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Reviews at a time: anybody may ask for one.
const AT_ONCE: usize = 8;
/// The longest token.
const MAX_TOKEN: usize = 16 << 10;

/// Why a service account lets no node join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no cluster that could be asked.
    #[error("this gateway's state is in no cluster, so it knows no service accounts: join with a token")]
    NoCluster,
    /// Nobody said whose pods may.
    #[error(
        "this gateway lets no node join by its service account: `transitAccount` and `nodeAccount` are not set"
    )]
    Off,
    /// It is no token.
    #[error("the service account's token has {0} bytes; it has 1 to {MAX_TOKEN}")]
    Length(usize),
    /// The API server does not know it.
    #[error("the cluster does not accept the service account's token for the audience `{AUDIENCE}`: {0}")]
    Unauthenticated(String),
    /// It is for somebody else.
    #[error("the service account's token is not for the audience `{AUDIENCE}` but for {0:?}")]
    Audience(Vec<String>),
    /// It is somebody else's.
    #[error("the token is of {user:?}, whose pods make no node a part of the mesh; those of {allowed} do")]
    Other {
        /// Whose it is.
        user: String,
        /// Whose it should be.
        allowed: String,
    },
    /// It is not known where its pod is.
    #[error(
        "the cluster does not say on which node the token's pod is (`{NODE_NAME}`): that needs Kubernetes 1.30 or newer, and a token that is bound to a pod, as in a projected volume"
    )]
    NoNode,
    /// The gateway may not ask.
    #[error(
        "the gateway may not review the service account's token, until it is allowed to `create` `tokenreviews` of `authentication.k8s.io`: {0}"
    )]
    Forbidden(String),
    /// The API server does not answer.
    #[error("the service account's token cannot be reviewed now, try again: {0}")]
    Unavailable(String),
}

/// What the cluster says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// The service account, `namespace/name`.
    pub account: String,
    /// What its pod makes of the node.
    pub target: Target,
}

/// Who may join so.
pub enum Accounts {
    /// Nobody: there is no cluster.
    NoCluster,
    /// Those whom the cluster knows as these.
    Of(Box<Reviewer>),
}

/// Asks the cluster.
pub struct Reviewer {
    client: Client,
    nodes: Nodes,
    room: Semaphore,
}

impl AccountError {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCluster | Self::Off => "account-off",
            Self::Length(_) | Self::Unauthenticated(_) => "account-unauthenticated",
            Self::Audience(_) => "account-audience",
            Self::Other { .. } => "account-other",
            Self::NoNode => "account-node",
            Self::Forbidden(_) | Self::Unavailable(_) => "account-unavailable",
        }
    }
}

impl From<AccountError> for tonic::Status {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        match error {
            AccountError::NoCluster
            | AccountError::Off
            | AccountError::NoNode
            | AccountError::Forbidden(_) => Self::failed_precondition(text),
            AccountError::Length(_) => Self::invalid_argument(text),
            AccountError::Unauthenticated(_) | AccountError::Audience(_) => Self::unauthenticated(text),
            AccountError::Other { .. } => Self::permission_denied(text),
            // The gateway did answer: the agent need not wonder whether it joined, and tries later.
            AccountError::Unavailable(_) => Self::aborted(text),
        }
    }
}

impl Accounts {
    /// Those of a configuration; nothing is asked yet.
    #[must_use]
    pub fn new(client: Option<Client>, nodes: Nodes) -> Self {
        match client {
            Some(client) => Self::Of(Box::new(Reviewer { client, nodes, room: Semaphore::new(AT_ONCE) })),
            None => Self::NoCluster,
        }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`AccountError`], naming the requirement that is not met.
    pub async fn review(&self, token: Zeroizing<String>) -> Result<Reviewed, AccountError> {
        match self {
            Self::NoCluster => Err(AccountError::NoCluster),
            Self::Of(reviewer) => reviewer.review(token).await,
        }
    }
}

impl Reviewer {
    async fn review(&self, token: Zeroizing<String>) -> Result<Reviewed, AccountError> {
        if !self.nodes.is_on() {
            return Err(AccountError::Off);
        }
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(AccountError::Length(token.len()));
        }
        let late = || AccountError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()));
        let status = tokio::time::timeout(DEADLINE, self.ask(&token)).await.map_err(|_elapsed| late())??;
        judge(status, &self.nodes)
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, AccountError> {
        let room = self.room.acquire().await;
        let _room = room.map_err(|_closed| AccountError::Unavailable("the gateway ends".to_owned()))?;
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(failed)?;
        answer.status.ok_or_else(|| AccountError::Unavailable("the answer says nothing".to_owned()))
    }
}

fn failed(error: kube::Error) -> AccountError {
    let kube::Error::Api(status) = error else {
        return AccountError::Unavailable(console::causes(&error));
    };
    if status.code == 403 {
        AccountError::Forbidden(status.message)
    } else {
        AccountError::Unavailable(format!("HTTP {}: {}", status.code, status.message))
    }
}

/// Decides by what the cluster says.
fn judge(status: TokenReviewStatus, nodes: &Nodes) -> Result<Reviewed, AccountError> {
    let TokenReviewStatus { audiences, authenticated, error, user } = status;
    if authenticated != Some(true) {
        let said = error.filter(|error| !error.is_empty()).unwrap_or_else(|| "it is not valid".to_owned());
        return Err(AccountError::Unauthenticated(said));
    }
    // One that says nothing of audiences did not look at them.
    let audiences = audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(AccountError::Audience(audiences));
    }
    let user = user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let is = |account: &&ServiceAccount| name == format!("{USER}{}:{}", account.namespace, account.name);
    let (transit, other) = (nodes.transit.as_ref().filter(is), nodes.node.as_ref().filter(is));
    let Some(account) = transit.or(other) else {
        let allowed: Vec<_> =
            [&nodes.transit, &nodes.node].into_iter().flatten().map(ToString::to_string).collect();
        return Err(AccountError::Other { user: name, allowed: allowed.join(" and ") });
    };
    let extra = user.extra.unwrap_or_default();
    let node = match extra.get(NODE_NAME).map(Vec::as_slice) {
        Some([node]) if pki::is_dns1123_subdomain(node) => node.clone(),
        _ => return Err(AccountError::NoNode),
    };
    let target = if transit.is_some() { Target::TransitNode { node } } else { Target::Node { node } };
    Ok(Reviewed { account: account.to_string(), target })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn nodes() -> Nodes {
        let account = |text: &str| Some(text.parse().unwrap());
        Nodes { transit: account("mesh/transit"), node: account("mesh/node"), gateways: Vec::new() }
    }

    fn said(user: &str, audiences: &[&str], names: &[&str]) -> TokenReviewStatus {
        let names = names.iter().map(ToString::to_string).collect();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(audiences.iter().map(ToString::to_string).collect()),
            error: None,
            user: Some(UserInfo {
                username: Some(user.to_owned()),
                extra: Some([(NODE_NAME.to_owned(), names)].into()),
                ..UserInfo::default()
            }),
        }
    }

    #[test]
    fn an_account_is_one_role_of_the_node_that_its_pod_is_on() {
        let node = "node-1".to_owned();
        for (user, account, target) in [
            (
                "system:serviceaccount:mesh:transit",
                "mesh/transit",
                Target::TransitNode { node: node.clone() },
            ),
            ("system:serviceaccount:mesh:node", "mesh/node", Target::Node { node: node.clone() }),
        ] {
            let reviewed = judge(said(user, &["a", "outrigger"], &["node-1"]), &nodes()).unwrap();
            assert_eq!(reviewed, Reviewed { account: account.to_owned(), target });
        }
    }

    #[test]
    fn every_requirement_is_told_apart() {
        let (transit, ours) = ("system:serviceaccount:mesh:transit", ["outrigger"]);
        let refused = |status| judge(status, &nodes()).unwrap_err();
        let good = || said(transit, &ours, &["node-1"]);
        for authenticated in [None, Some(false)] {
            let error = Some("it has expired".to_owned());
            let refused = refused(TokenReviewStatus { authenticated, error, ..good() });
            assert!(refused.to_string().contains("it has expired"), "{refused}");
        }
        assert_eq!(
            refused(said(transit, &["api"], &["node-1"])),
            AccountError::Audience(vec!["api".to_owned()])
        );
        let silent = TokenReviewStatus { audiences: None, ..good() };
        assert_eq!(refused(silent), AccountError::Audience(Vec::new()));
        for other in [
            "system:serviceaccount:mesh:default",
            "system:serviceaccount:other:transit",
            "system:serviceaccount:mesh:transit:x",
            "mesh/transit",
            "system:serviceaccount::",
            "",
        ] {
            let refused = refused(said(other, &ours, &["node-1"]));
            assert!(matches!(refused, AccountError::Other { .. }), "{other}: {refused}");
            assert!(refused.to_string().contains("mesh/transit and mesh/node"), "{refused}");
        }
        for names in [&[][..], &["a", "b"], &["No Name"], &["../x"]] {
            assert_eq!(refused(said(transit, &ours, names)), AccountError::NoNode, "{names:?}");
        }
        let bare = UserInfo { username: Some(transit.to_owned()), ..UserInfo::default() };
        assert_eq!(refused(TokenReviewStatus { user: Some(bare), ..good() }), AccountError::NoNode);
        assert!(matches!(refused(TokenReviewStatus { user: None, ..good() }), AccountError::Other { .. }));
    }

    #[test]
    fn an_account_that_is_not_set_is_nobodys() {
        let only = Nodes { transit: None, ..nodes() };
        let refused = judge(said("system:serviceaccount:mesh:transit", &["outrigger"], &["n"]), &only);
        let allowed = "mesh/node".to_owned();
        let user = "system:serviceaccount:mesh:transit".to_owned();
        assert_eq!(refused, Err(AccountError::Other { user, allowed }));
    }

    #[tokio::test]
    async fn without_a_cluster_there_are_no_accounts() {
        let refused = Accounts::new(None, nodes()).review(Zeroizing::new("t".to_owned())).await;
        assert_eq!(refused, Err(AccountError::NoCluster));
    }
}
