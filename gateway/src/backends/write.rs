//! Writes slices. Each write names the version that it was made of: what somebody else changed meanwhile is looked at again
//! first.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, Error};

use super::follow::{Key, Observed};
use super::plan::Change;
use super::slice::{Owner, Slice, object};

/// Writes the changes of one Service, in order.
///
/// # Errors
/// What the API server says of the first one that it refuses.
pub(super) async fn write(
    client: &Client,
    observed: &Observed,
    owner: &Owner,
    changes: Vec<Change>,
) -> Result<(), String> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &owner.namespace);
    for change in changes {
        let done = match change {
            Change::Create(shape, endpoints) => {
                let new = object(owner, &shape, &endpoints, None);
                api.create(&PostParams::default(), &new).await.map(Some)
            }
            Change::Update(name, endpoints) => {
                let Some(before) = known(observed, owner, &name) else { continue };
                let new = object(owner, &before.shape, &endpoints, Some(&before));
                missing_is_gone(
                    api.replace(&name, &PostParams::default(), &new).await.map(Some),
                    observed,
                    &before,
                )
            }
            Change::Delete(name) => {
                let Some(before) = known(observed, owner, &name) else { continue };
                delete(&api, observed, &before).await.map(|()| None)
            }
        };
        match done {
            Ok(Some(written)) => remember(observed, &written),
            Ok(None) => {}
            // Somebody was faster; what they did is seen soon.
            Err(Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(describe(&error)),
        }
    }
    Ok(())
}

/// Deletes slices that belong to no Service any more.
///
/// # Errors
/// What the API server says of the first one that it refuses.
pub(super) async fn remove(client: &Client, observed: &Observed, slices: Vec<Slice>) -> Result<(), String> {
    for slice in slices {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &slice.namespace);
        match delete(&api, observed, &slice).await {
            Ok(()) => {}
            Err(Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(describe(&error)),
        }
    }
    Ok(())
}

async fn delete(api: &Api<EndpointSlice>, observed: &Observed, slice: &Slice) -> Result<(), Error> {
    let preconditions = Preconditions {
        uid: Some(slice.uid.clone()),
        // One that is somebody else's by now has another version.
        resource_version: Some(slice.version.clone()),
    };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let deleted = api.delete(&slice.name, &parameters).await.map(|_deleted| None);
    missing_is_gone(deleted, observed, slice)?;
    forget(observed, slice);
    Ok(())
}

fn missing_is_gone(
    done: Result<Option<EndpointSlice>, Error>,
    observed: &Observed,
    slice: &Slice,
) -> Result<Option<EndpointSlice>, Error> {
    match done {
        Err(Error::Api(status)) if status.code == 404 => {
            forget(observed, slice);
            Ok(None)
        }
        done => done,
    }
}

fn known(observed: &Observed, owner: &Owner, name: &str) -> Option<Slice> {
    observed.lock().slices.objects.get(&(owner.namespace.clone(), name.to_owned())).cloned()
}

/// What was written is known before it is seen: else it would be written again.
fn remember(observed: &Observed, written: &EndpointSlice) {
    if let Some(slice) = Slice::read(written) {
        observed.lock().slices.objects.insert(key(&slice), slice);
    }
}

fn forget(observed: &Observed, slice: &Slice) {
    let mut seen = observed.lock();
    if seen.slices.objects.get(&key(slice)).is_some_and(|known| known.uid == slice.uid) {
        seen.slices.objects.remove(&key(slice));
    }
}

fn key(slice: &Slice) -> Key {
    (slice.namespace.clone(), slice.name.clone())
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
