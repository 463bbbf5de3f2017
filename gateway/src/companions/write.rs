//! Writes companions. Each write names the version that it was made of: what somebody else changed meanwhile is looked at
//! again first.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::{Client, Error};

use super::decide::{Change, Work};
use super::follow::{Observed, policy};

/// Writes one change; whether something was written.
///
/// # Errors
/// What the API server says: of what is forbidden, verb and resource.
pub(super) async fn write(client: &Client, observed: &Observed, work: Work) -> Result<bool, String> {
    let (namespace, _) = &work.about;
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let done = match work.change {
        Change::Create(object) => {
            api.create(&PostParams::default(), &object).await.map(|made| remember(observed, namespace, &made))
        }
        Change::Update(object) => {
            let name = object.metadata.name.clone().unwrap_or_default();
            let written = api.replace(&name, &PostParams::default(), &object).await;
            written.map(|made| remember(observed, namespace, &made))
        }
        Change::Delete { name, uid, version } => {
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: Some(version) };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let deleted = api.delete(&name, &parameters).await;
            deleted.map(|_deleted| {
                let (mut seen, key) = (observed.lock(), (namespace.clone(), name));
                let policies = &mut seen.policies.objects;
                if policies.get(&key).is_some_and(|known| known.uid == uid) {
                    policies.remove(&key);
                }
            })
        }
    };
    match done {
        Ok(()) => Ok(true),
        // Somebody was faster; what they did is seen soon.
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(describe(&error)),
    }
}

/// What was written is known before it is seen: else it would be written again.
fn remember(observed: &Observed, namespace: &str, written: &NetworkPolicy) {
    let object = serde_json::to_value(written).ok();
    let object = object.and_then(|value| serde_json::from_value::<DynamicObject>(value).ok());
    if let Some(found) = object.as_ref().and_then(policy) {
        let key = (namespace.to_owned(), written.metadata.name.clone().unwrap_or_default());
        observed.lock().policies.objects.insert(key, found);
    }
}

/// The API server names verb and resource of what is forbidden.
fn describe(error: &Error) -> String {
    if let Error::Api(status) = error
        && !status.message.is_empty()
    {
        return status.message.clone();
    }
    error.to_string()
}
