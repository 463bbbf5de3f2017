//! The cluster, with the rights of who asks.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};

use crate::arguments::Target;
use crate::failure::Failure;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// Objects of a page of a list.
const PAGE: u32 = 500;

/// A client, and the namespace that is meant.
pub(crate) async fn connect(target: &Target) -> Result<(Client, String), Failure> {
    let Target { kubeconfig, context, namespace, output: _ } = target;
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let mut config = match (kubeconfig, context) {
        (Some(path), _) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        (None, Some(_)) => Config::from_kubeconfig(&options).await?,
        (None, None) => Config::infer().await.map_err(Box::new)?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    let namespace = namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(Failure::cluster("the client of the API"))?;
    Ok((client, namespace))
}

/// All objects, page by page.
pub(crate) async fn list<K>(api: &Api<K>) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + k8s_openapi::serde::de::DeserializeOwned,
{
    let mut all = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await.map_err(Failure::cluster(K::plural(&())))?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// The namespace and the name of `NAME` or `NAMESPACE/NAME`.
pub(crate) fn named<'a>(namespace: &'a str, name: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_say_its_namespace() {
        assert_eq!(named("shop", "db-1"), ("shop", "db-1"));
        assert_eq!(named("shop", "bank/db-1"), ("bank", "db-1"));
    }
}
