//! `token create`: the secret is made here; the cluster gets its hash, and says what else is in a token.

use std::time::Duration;

use crds::{Bootstrap, JoinToken, JoinTokenSpec, JoinTokenStatus, Prefix};
use ipnet::IpNet;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use proto::v1;
use secrecy::ExposeSecret as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::arguments::Format;
use crate::failure::Failure;

/// How long a gateway may take to see the token, and between two looks.
const SEEN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

/// What the token is for.
pub(super) struct Wanted {
    pub(super) group: String,
    pub(super) ttl: String,
    pub(super) uses: u32,
    pub(super) source_prefixes: Vec<IpNet>,
    pub(super) ephemeral: bool,
}

pub(super) async fn create(
    client: Client,
    namespace: &str,
    wanted: Wanted,
    format: Format,
) -> Result<(), Failure> {
    let secret = Zeroizing::new(rand::random::<[u8; 32]>());
    let spec = JoinTokenSpec {
        group: wanted.group,
        ttl: wanted.ttl,
        not_after: None,
        max_uses: wanted.uses,
        source_cidrs: wanted.source_prefixes.iter().map(|prefix| Prefix(prefix.to_string())).collect(),
        ephemeral: wanted.ephemeral,
        secret_hash: hex::encode(Sha256::digest(&*secret)),
        replaces: None,
        revoked: false,
    };
    let metadata = ObjectMeta { generate_name: Some(format!("{}-", spec.group)), ..ObjectMeta::default() };
    let object = JoinToken { metadata, spec, status: None };
    let api: Api<JoinToken> = Api::namespaced(client, namespace);
    let made = api.create(&PostParams::default(), &object).await;
    let made = made.map_err(Failure::cluster(format!("the JoinToken in {namespace}")))?;
    let name = made.metadata.name.unwrap_or_default();
    let (bootstrap, expires) = match wait(&api, namespace, &name).await {
        Ok(known) => known,
        Err(failure) => {
            // Nobody has the secret of it.
            let _kept = api.delete(&name, &kube::api::DeleteParams::default()).await;
            return Err(failure);
        }
    };
    let id = format!("{namespace}/{name}");
    let text = proto::token::encode(&v1::JoinToken {
        gateways: bootstrap.gateways,
        root_pins: bootstrap.root_pins.iter().filter_map(|pin| hex::decode(pin).ok()).collect(),
        trust_domain: bootstrap.trust_domain,
        id: id.clone(),
        secret: secret.to_vec(),
    });
    match format {
        Format::Json => {
            console::json(&json!({ "id": id, "token": text.expose_secret(), "expires": expires }))?;
        }
        Format::Text => {
            console::line(text.expose_secret())?;
            console::note(&format!(
                "\nToken {id} is valid until {expires}; it is not shown again. On the host, run\n\n    sudo outrigger join\n\n\
                 and paste it there. End it with `kubectl --namespace {namespace} delete jt {name}`."
            ));
        }
    }
    Ok(())
}

/// Waits until a gateway says what belongs into the token, or why nobody can join with it.
async fn wait(api: &Api<JoinToken>, namespace: &str, name: &str) -> Result<(Bootstrap, String), Failure> {
    let seen = async {
        loop {
            let token = api.get_status(name).await;
            let token = token.map_err(Failure::cluster(format!("JoinToken {namespace}/{name}")))?;
            let JoinTokenStatus { bootstrap, expires, conditions, .. } = token.status.unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
            match (ready, bootstrap) {
                (Some(ready), _) if ready.status == "False" => {
                    return Err(Failure::Gateway(format!("nobody could join with it: {}", ready.message)));
                }
                (Some(_), Some(bootstrap)) => return Ok((bootstrap, expires.unwrap_or_default())),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    let late = |_late| {
        let text = format!(
            "no gateway has seen the token within {} s: does one run with its state in this cluster, and is `advertise` set?",
            SEEN.as_secs()
        );
        Err(Failure::Gateway(text))
    };
    tokio::time::timeout(SEEN, seen).await.unwrap_or_else(late)
}
