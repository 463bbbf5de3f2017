//! `token create`: the secret is made here; the cluster gets its hash, and says what else is in a token.

use std::time::Duration;

use crds::{Bootstrap, ExternalWorkload, ExternalWorkloadGroup, JoinToken, JoinTokenSpec, JoinTokenStatus};
use crds::{Prefix, Replaced};
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use proto::v1;
use secrecy::ExposeSecret as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::arguments::{Format, Wanted};
use crate::cluster::named;
use crate::failure::Failure;

/// How long a gateway may take to see the token, and between two looks.
const SEEN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn create(
    client: Client,
    namespace: &str,
    wanted: Wanted,
    format: Format,
) -> Result<(), Failure> {
    let group = wanted.group.clone();
    let (namespace, group) = named(namespace, &group);
    expect_group(&client, namespace, group).await?;
    let replaces = match &wanted.replace {
        Some(name) => Some(replaced(&client, namespace, name, group).await?),
        None => None,
    };
    let secret = Zeroizing::new(rand::random::<[u8; 32]>());
    let spec = spec(&wanted, group, replaces, hex::encode(Sha256::digest(*secret)));
    let metadata = ObjectMeta { generate_name: Some(format!("{group}-")), ..ObjectMeta::default() };
    let object = JoinToken { metadata, spec, status: None };
    let api: Api<JoinToken> = Api::namespaced(client, namespace);
    let made = api.create(&PostParams::default(), &object).await;
    let made = made.map_err(Failure::cluster(format!("a JoinToken in {namespace}")))?;
    let name = made.metadata.name.unwrap_or_default();
    let known = tokio::select! {
        known = wait(&api, namespace, &name) => known,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    };
    let (bootstrap, expires) = match known {
        Ok(known) => known,
        Err(failure) => {
            // Nobody has the secret of it.
            if let Err(kept) = api.delete(&name, &DeleteParams::default()).await {
                let kept = Failure::cluster(format!("JoinToken {namespace}/{name} is left behind"))(kept);
                console::note(&kept.to_string());
            }
            return Err(failure);
        }
    };
    let id = format!("{namespace}/{name}");
    let text = proto::token::encode(&v1::JoinToken {
        gateways: bootstrap.gateways,
        root_pins: pins(&bootstrap.root_pins)?,
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
                 and paste it there. To end it: kubectl --namespace {namespace} delete jointoken {name}"
            ));
        }
    }
    Ok(())
}

/// A group that is missing is told before a token is made for it. Who may not look at groups learns it later.
async fn expect_group(client: &Client, namespace: &str, group: &str) -> Result<(), Failure> {
    let groups: Api<ExternalWorkloadGroup> = Api::namespaced(client.clone(), namespace);
    match groups.get(group).await {
        Ok(_group) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(error) => Err(Failure::cluster(format!("group {namespace}/{group}"))(error)),
    }
}

/// The host that another one takes the place of.
async fn replaced(client: &Client, namespace: &str, name: &str, group: &str) -> Result<Replaced, Failure> {
    let hosts: Api<ExternalWorkload> = Api::namespaced(client.clone(), namespace);
    let host = hosts.get(name).await.map_err(Failure::cluster(format!("host {namespace}/{name}")))?;
    if host.spec.group != group {
        let text = format!("host {namespace}/{name} is of group {}, and not of {group}", host.spec.group);
        return Err(Failure::Failed(text));
    }
    let Some(recorded) = host.spec.recorded else {
        return Err(Failure::Failed(format!(
            "no host has joined as {namespace}/{name}: there is nothing to replace"
        )));
    };
    Ok(Replaced { workload: name.to_owned(), key_hash: Some(recorded.key_hash) })
}

fn spec(wanted: &Wanted, group: &str, replaces: Option<Replaced>, secret_hash: String) -> JoinTokenSpec {
    JoinTokenSpec {
        group: group.to_owned(),
        ttl: format!("{}s", wanted.ttl.0.as_secs().max(1)),
        not_after: None,
        max_uses: wanted.uses,
        source_cidrs: wanted.source_prefixes.iter().map(|prefix| Prefix(prefix.to_string())).collect(),
        ephemeral: wanted.ephemeral,
        secret_hash,
        replaces,
        revoked: false,
    }
}

fn pins(texts: &[String]) -> Result<Vec<Vec<u8>>, Failure> {
    let decoded = texts.iter().map(hex::decode).collect::<Result<Vec<_>, _>>();
    decoded.map_err(|_malformed| Failure::Failed("the gateway says a root that cannot be read".to_owned()))
}

/// What a gateway has said of a token so far.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// What belongs into it, and when it ends.
    All(Bootstrap, String),
    /// Nobody can join with it.
    Never(String),
    /// Not enough, and what may be the reason.
    NotYet(&'static str),
}

/// Waits until a gateway says what belongs into the token, or why nobody can join with it.
async fn wait(api: &Api<JoinToken>, namespace: &str, name: &str) -> Result<(Bootstrap, String), Failure> {
    let started = tokio::time::Instant::now();
    loop {
        let token = api.get(name).await;
        let token = token.map_err(Failure::cluster(format!("JoinToken {namespace}/{name}")))?;
        match said(token.status.unwrap_or_default()) {
            Said::All(bootstrap, expires) => return Ok((bootstrap, expires)),
            Said::Never(reason) => {
                return Err(Failure::Failed(format!("nobody could join with the token: {reason}")));
            }
            Said::NotYet(reason) if started.elapsed() > SEEN => {
                let text = format!("no gateway made the token usable within {} s: {reason}", SEEN.as_secs());
                return Err(Failure::Failed(text));
            }
            Said::NotYet(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn said(status: JoinTokenStatus) -> Said {
    let JoinTokenStatus { bootstrap, expires, conditions, .. } = status;
    let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") else {
        return Said::NotYet("none has seen it. Does one run, with its state in this cluster?");
    };
    match (ready.status.as_str(), bootstrap) {
        ("True", Some(bootstrap)) => Said::All(bootstrap, expires.unwrap_or_default()),
        ("True", None) => Said::NotYet(
            "hosts would not know where to go. `advertise` is not set in the gateway's configuration",
        ),
        // A group that has just been made may not be known yet.
        _ if ready.reason == "GroupMissing" => Said::NotYet("the gateway does not know the group"),
        _ => Said::Never(ready.message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn status(value: Value) -> JoinTokenStatus {
        serde_json::from_value(value).unwrap()
    }

    fn ready(holds: &str, reason: &str) -> Value {
        json!([{"type": "Ready", "status": holds, "reason": reason, "message": "its time is over",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    }

    #[test]
    fn a_token_is_made_of_what_a_gateway_says() {
        assert!(
            matches!(said(JoinTokenStatus::default()), Said::NotYet(text) if text.contains("none has seen"))
        );
        let unadvertised = said(status(json!({"conditions": ready("True", "Usable")})));
        assert!(matches!(unadvertised, Said::NotYet(text) if text.contains("advertise")));
        let unknown = said(status(json!({"conditions": ready("False", "GroupMissing")})));
        assert!(matches!(unknown, Said::NotYet(text) if text.contains("group")));
        let over = said(status(json!({"conditions": ready("False", "Expired")})));
        assert_eq!(over, Said::Never("its time is over".to_owned()));
        let bootstrap = json!({"gateways": ["192.0.2.1:7443"], "rootPins": ["07"], "trustDomain": "d"});
        let all = said(status(
            json!({"bootstrap": bootstrap, "expires": "2026-01-01T00:00:00Z", "conditions": ready("True", "Usable")}),
        ));
        let Said::All(bootstrap, expires) = all else { panic!("{all:?}") };
        assert_eq!(
            (expires.as_str(), pins(&bootstrap.root_pins).unwrap()),
            ("2026-01-01T00:00:00Z", vec![vec![7]])
        );
        assert!(pins(&["x".to_owned()]).is_err());
    }
}
