//! Keeps what a transaction changed, in an order that harms nobody where it ends early.

use crds::{ExternalWorkload, JoinToken, RELEASE};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::objects::{self, MANAGED_BY};
use super::{ClusterLedger, ROOTS, failed, is_code};
use crate::store::{Bytes, Changes, LedgerError, Shared, Target, Token, Workload, WorkloadName};

/// How often an object is read again that somebody else has changed.
const ATTEMPTS: usize = 5;

/// A change of a record: its table, its key, what it is now.
type Change<'a> = (Shared, &'a String, Option<&'a Bytes>);

impl ClusterLedger {
    /// Tables first, but for what frees an address or a key; then hosts; then what follows from them.
    pub(super) async fn keep_all(&self, changes: &Changes) -> Result<(), LedgerError> {
        let (mut first, mut hosts, mut last, mut roots) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((table, key), bytes) in changes {
            let change = (*table, key, bytes.as_ref());
            match table {
                Shared::Numbers | Shared::Runs | Shared::Identities | Shared::Relabels => {
                    first.push(change);
                }
                Shared::RevokedKeys | Shared::RestingAddresses if bytes.is_some() => first.push(change),
                Shared::RevokedKeys | Shared::RestingAddresses | Shared::Tokens => last.push(change),
                Shared::Roots => roots.push(change),
                Shared::Workloads => hosts.push(change),
            }
        }
        self.keep_records(first).await?;
        self.keep_roots(&roots).await?;
        for (table, key, bytes) in hosts {
            self.keep_host(table, key, bytes).await?;
        }
        let (tokens, records): (Vec<_>, Vec<_>) =
            last.into_iter().partition(|(table, ..)| *table == Shared::Tokens);
        self.keep_records(records).await?;
        for (table, key, bytes) in tokens {
            self.keep_token(table, key, bytes).await?;
        }
        Ok(())
    }

    async fn keep_roots(&self, changes: &[Change<'_>]) -> Result<(), LedgerError> {
        if changes.is_empty() {
            return Ok(());
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for _attempt in 0..ATTEMPTS {
            let found = api.get_opt(ROOTS).await.map_err(|error| failed("get Secret", ROOTS, &error))?;
            let is_new = found.is_none();
            let mut secret = found.unwrap_or_else(|| {
                let mut secret = Secret::default();
                secret.metadata.name = Some(ROOTS.to_owned());
                secret.metadata.namespace = Some(self.namespace.clone());
                secret.labels_mut().insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
                secret
            });
            let data = secret.data.get_or_insert_default();
            for (_, id, bytes) in changes {
                match bytes {
                    Some(bytes) => data.insert((*id).clone(), ByteString(bytes.0.to_vec())),
                    None => data.remove(*id),
                };
            }
            let written = if is_new {
                api.create(&PostParams::default(), &secret).await
            } else {
                api.replace(ROOTS, &PostParams::default(), &secret).await
            };
            match written {
                Ok(_written) => return Ok(()),
                Err(error) if is_code(&error, 409) => {}
                Err(error) => return Err(failed("write Secret", ROOTS, &error)),
            }
        }
        Err(LedgerError(format!("write Secret {ROOTS}: somebody else writes it all the time")))
    }

    /// A cluster node is no object of ours; a host is.
    async fn keep_host(&self, table: Shared, key: &String, bytes: Option<&Bytes>) -> Result<(), LedgerError> {
        let Some(bytes) = bytes else {
            if self.has_record(table, key).await {
                return self.keep_records([(table, key, None)]).await;
            }
            let name = key.parse::<WorkloadName>().map_err(|error| LedgerError(error.to_string()))?;
            return self.delete_host(&name).await;
        };
        let workload: Workload = decode(key, bytes)?;
        match workload.target {
            Target::Group { .. } => self.write_host(&workload).await,
            Target::TransitNode { .. } | Target::Node { .. } => {
                self.keep_records([(table, key, Some(bytes))]).await
            }
        }
    }

    async fn write_host(&self, workload: &Workload) -> Result<(), LedgerError> {
        let api: Api<ExternalWorkload> = Api::namespaced(self.client.clone(), &workload.name.namespace);
        let (name, text) = (&workload.name.name, workload.name.to_string());
        for _attempt in 0..ATTEMPTS {
            let found =
                api.get_opt(name).await.map_err(|error| failed("get ExternalWorkload", &text, &error))?;
            let written = match found {
                None => api.create(&PostParams::default(), &objects::object(workload)).await.map(drop),
                Some(found) if found.metadata.deletion_timestamp.is_some() => {
                    return Err(LedgerError(format!("ExternalWorkload {text} is being deleted: try again")));
                }
                Some(found) => {
                    let spec = objects::spec(workload, Some(&found.spec));
                    let is_held = found.finalizers().iter().any(|own| own == RELEASE);
                    if spec == found.spec && is_held {
                        return Ok(());
                    }
                    let finalizers: Vec<_> = others(&found).chain([RELEASE]).collect();
                    let patch = json!({
                        "metadata": { "resourceVersion": found.resource_version(), "finalizers": finalizers },
                        "spec": spec,
                    });
                    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
                }
            };
            match written {
                Ok(()) => return Ok(()),
                Err(error) if is_code(&error, 409) => {}
                Err(error) => return Err(failed("write ExternalWorkload", &text, &error)),
            }
        }
        Err(LedgerError(format!("write ExternalWorkload {text}: somebody else writes it all the time")))
    }

    /// Deletes a host's object. One that was declared before the host joined is declared again: that is not the host's to
    /// take away.
    async fn delete_host(&self, name: &WorkloadName) -> Result<(), LedgerError> {
        let api: Api<ExternalWorkload> = Api::namespaced(self.client.clone(), &name.namespace);
        let text = name.to_string();
        let found = api.get_opt(&name.name).await;
        let found = found.map_err(|error| failed("get ExternalWorkload", &text, &error))?;
        let Some(found) = found else { return Ok(()) };
        let is_ours = found.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
        let again = (!is_ours && found.metadata.deletion_timestamp.is_none()).then(|| declared(&found));
        if found.metadata.deletion_timestamp.is_none() {
            let preconditions = Preconditions { uid: found.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&name.name, &parameters).await {
                Ok(_deleted) => {}
                Err(error) if is_code(&error, 404) => {}
                Err(error) => return Err(failed("delete ExternalWorkload", &text, &error)),
            }
        }
        self.release(&found).await?;
        if let Some(again) = again {
            let created = api.create(&PostParams::default(), &again).await;
            created.map_err(|error| failed("declare ExternalWorkload", &text, &error))?;
        }
        Ok(())
    }

    /// Lets an object go that is being deleted.
    pub(super) async fn release(&self, object: &ExternalWorkload) -> Result<(), LedgerError> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let api: Api<ExternalWorkload> = Api::namespaced(self.client.clone(), &namespace);
        let finalizers: Vec<_> = others(object).collect();
        let patch = json!({ "metadata": { "uid": object.uid(), "finalizers": finalizers } });
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_released) => Ok(()),
            // It is gone, and perhaps there is another one.
            Err(error) if is_code(&error, 404) || is_code(&error, 409) => Ok(()),
            Err(error) => Err(failed("release ExternalWorkload", &format!("{namespace}/{name}"), &error)),
        }
    }

    /// A token of members of a group is an object; one of a cluster node is not.
    async fn keep_token(&self, table: Shared, id: &String, bytes: Option<&Bytes>) -> Result<(), LedgerError> {
        let Some((namespace, name)) = id.split_once('/') else {
            return self.keep_records([(table, id, bytes)]).await;
        };
        let api: Api<JoinToken> = Api::namespaced(self.client.clone(), namespace);
        let Some(bytes) = bytes else {
            return match api.delete(name, &DeleteParams::default()).await {
                Ok(_deleted) => Ok(()),
                Err(error) if is_code(&error, 404) => Ok(()),
                Err(error) => Err(failed("delete JoinToken", id, &error)),
            };
        };
        let token: Token = decode(id, bytes)?;
        let found = api.get_opt(name).await.map_err(|error| failed("get JoinToken", id, &error))?;
        let found = match (found, &token.target) {
            (Some(found), _) => found,
            (None, Target::Group { name: group, .. }) if token.is_new() => {
                let object = objects::token_object(&token, namespace, name, group);
                let created = api.create(&PostParams::default(), &object).await;
                created.map_err(|error| failed("create JoinToken", id, &error))?
            }
            // Somebody deleted it, and that ends it.
            (None, _) => return Ok(()),
        };
        if token.revoked && !found.spec.revoked {
            let patch = json!({ "spec": { "revoked": true } });
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.map_err(|error| failed("revoke JoinToken", id, &error))?;
        }
        let status = objects::token_status(&token, found.status.as_ref());
        if found.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": without_conditions(&status) }));
        let patched = api.patch_status(name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| failed("write the status of JoinToken", id, &error))
    }
}

/// The finalizers of others.
fn others(object: &ExternalWorkload) -> impl Iterator<Item = &str> {
    object.finalizers().iter().map(String::as_str).filter(|own| *own != RELEASE)
}

/// The object as it was before a host joined, with the addresses that this one had.
fn declared(object: &ExternalWorkload) -> ExternalWorkload {
    let mut again = ExternalWorkload::new(&object.name_any(), object.spec.clone());
    again.spec.recorded = None;
    again.metadata.namespace = object.namespace();
    again.metadata.labels.clone_from(&object.metadata.labels);
    again.metadata.annotations.clone_from(&object.metadata.annotations);
    again
}

/// The status without what is written elsewhere.
fn without_conditions(status: &crds::JoinTokenStatus) -> Value {
    let mut value = json!(status);
    if let Value::Object(fields) = &mut value {
        fields.remove("conditions");
        fields.remove("bootstrap");
    }
    value
}

fn decode<T: serde::de::DeserializeOwned>(key: &str, bytes: &Bytes) -> Result<T, LedgerError> {
    serde_json::from_slice(&bytes.0).map_err(|error| LedgerError(format!("{key}: {error}")))
}
