//! What a cluster has at one moment, for who asks once: what cannot be read is an error, and not waited for.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};

use super::companions::Companions;
use super::follow::{describe, served};
use super::{kinds, select};
use crate::manifest::{Kind, Resource};
use crate::source::catalog::FileChange;

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// Objects that cannot be read: which ones and why. The API server names verb and resource.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(String);

/// The objects of all kinds that a cluster has, of each what means something here.
///
/// # Errors
/// [`ReadError`] of one kind.
pub async fn read(client: &Client) -> Result<Vec<FileChange>, ReadError> {
    let reading = kinds().into_iter().map(|(kind, versions)| read_kind(client, kind, versions));
    let all = futures_util::future::try_join_all(reading).await?;
    Ok(all.into_iter().flatten().collect())
}

async fn read_kind(
    client: &Client,
    kind: Kind,
    versions: Vec<Resource>,
) -> Result<Vec<FileChange>, ReadError> {
    let failed = |error| ReadError(describe(kind, &error));
    let Some(resource) = served(client, &versions).await.map_err(failed)? else { return Ok(Vec::new()) };
    list(client, kind, &resource).await.map_err(failed)
}

async fn list(client: &Client, kind: Kind, resource: &ApiResource) -> Result<Vec<FileChange>, kube::Error> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let (mut all, mut companions) = (Vec::new(), Companions::new(kind));
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        let objects = page.items.into_iter().filter_map(|object| companions.listed(object));
        all.extend(objects.map(|object| selected(kind, resource, object)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    all.extend(companions.end().into_iter().map(|object| selected(kind, resource, object)));
    Ok(all)
}

fn selected(kind: Kind, resource: &ApiResource, object: DynamicObject) -> FileChange {
    let (name, value) = select::object(kind, resource, object);
    FileChange::Object(name, value)
}
