//! What the tests of the Kubernetes source rely on, asked of the API server that they run against.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::apiserver::fixture::{ApiServer, WRITES};
use e2e::net::Net;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;

#[path = "apiserver/custom.rs"]
mod custom;
#[path = "apiserver/rights.rs"]
mod rights;

const LIMIT: Duration = Duration::from_secs(20);

fn config_map(name: &str, value: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"x": value},
    })
    .to_string()
}

/// Takes events until these objects, and no others, are known to have these values.
async fn follow(
    events: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin),
    known: &mut BTreeSet<(String, String)>,
    wanted: &[(&str, &str)],
) -> Result<()> {
    let wanted: BTreeSet<(String, String)> =
        wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut fresh = None;
    while *known != wanted || fresh.is_some() {
        let event = tokio::time::timeout(LIMIT, events.next()).await.with_context(|| format!("{known:?}"))?;
        let entry = |object: &ConfigMap| {
            (
                object.name_any(),
                object.data.as_ref().and_then(|data| data.get("x")).cloned().unwrap_or_default(),
            )
        };
        match event.context("the watch ended")? {
            Ok(Event::Init) => fresh = Some(BTreeSet::new()),
            Ok(Event::InitApply(object)) => fresh.iter_mut().for_each(|all| {
                all.insert(entry(&object));
            }),
            Ok(Event::InitDone) => *known = fresh.take().unwrap_or_default(),
            Ok(Event::Apply(object)) => {
                known.retain(|(name, _)| *name != object.name_any());
                known.insert(entry(&object));
            }
            Ok(Event::Delete(object)) => known.retain(|(name, _)| *name != object.name_any()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Ok(())
}

#[test]
fn a_watcher_follows_through_cuts_restarts_and_forgotten_history() -> Result<()> {
    let net = Net::try_new()?;
    let mut server = ApiServer::start(&net.host("api")?)?;
    if !server.is_double() {
        return Ok(());
    }
    for streaming in [false, true] {
        server.apply(&config_map("one", "1"))?;
        server.delete("v1", "ConfigMap", "default", "two")?;
        let api: Api<ConfigMap> = Api::default_namespaced(server.client("admin")?);
        let config = watcher::Config::default().timeout(30);
        let mut events =
            pin!(watcher(api, if streaming { config.streaming_lists() } else { config.page_size(1) }));
        let mut known = BTreeSet::new();
        server.block_on(follow(&mut events, &mut known, &[("one", "1")]))?;
        server.apply(&config_map("two", "1"))?;
        server.block_on(follow(&mut events, &mut known, &[("one", "1"), ("two", "1")]))?;
        server.control("drop-watches")?;
        server.apply(&config_map("two", "2"))?;
        server.block_on(follow(&mut events, &mut known, &[("one", "1"), ("two", "2")]))?;
        server.kill()?;
        server.launch()?;
        server.delete("v1", "ConfigMap", "default", "one")?;
        server.control("compact")?;
        server.block_on(follow(&mut events, &mut known, &[("two", "2")]))?;
        server.control("freeze?user=admin")?;
        server.apply(&config_map("one", "3"))?;
        let quiet =
            server.block_on(async { tokio::time::timeout(Duration::from_millis(300), events.next()).await });
        assert!(quiet.is_err(), "{quiet:?}");
        server.control("thaw?user=admin")?;
        server.block_on(follow(&mut events, &mut known, &[("one", "3"), ("two", "2")]))?;
    }
    Ok(())
}

/// The code and message of a refusal.
fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> (u16, String) {
    match answer {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => (0, format!("no refusal: {other:?}")),
    }
}

#[test]
fn writers_that_saw_an_older_version_are_refused_and_the_status_is_written_apart() -> Result<()> {
    let net = Net::try_new()?;
    let server = ApiServer::start(&net.host("api")?)?;
    let client = server.client("admin")?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    server.block_on(async {
        let pod = serde_json::from_value(json!({
            "metadata": {"generateName": "web-"},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
            "status": {"podIP": "10.0.0.1"},
        }))?;
        let made = pods.create(&PostParams::default(), &pod).await?;
        let name = made.name_any();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!((made.metadata.generation, pod_ip(&made)), (Some(1), None), "a new object has no status");
        let mut first = made.clone();
        first.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        let labelled = pods.replace(&name, &PostParams::default(), &first).await?;
        assert_eq!(labelled.metadata.generation, Some(1), "labels are no generation");
        let (code, message) = refusal(pods.replace(&name, &PostParams::default(), &first).await);
        assert_eq!(code, 409);
        assert!(message.contains("the object has been modified; please apply your changes"), "{message}");
        let again = pods.replace(&name, &PostParams::default(), &labelled).await?;
        assert_eq!(again.resource_version(), labelled.resource_version(), "nothing was changed");

        let mut both = labelled.clone();
        both.spec.as_mut().context("no spec")?.node_name = Some("n1".to_owned());
        both.status.get_or_insert_default().pod_ip = Some("10.0.0.2".to_owned());
        let stored = pods.replace_status(&name, &PostParams::default(), &both).await?;
        assert_eq!((pod_ip(&stored), stored.metadata.generation), (Some("10.0.0.2"), Some(1)));
        assert_eq!(stored.spec.as_ref().and_then(|spec| spec.node_name.as_deref()), None);
        let patch = json!({"spec": {"nodeName": "n2"}, "status": {"podIP": "10.0.0.3"}});
        let stored = pods.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        assert_eq!((pod_ip(&stored), stored.metadata.generation), (Some("10.0.0.2"), Some(2)));
        assert_eq!(stored.spec.as_ref().and_then(|spec| spec.node_name.as_deref()), Some("n2"));
        let (code, message) = refusal(pods.get("none").await);
        assert_eq!((code, message.as_str()), (404, "pods \"none\" not found"));
        anyhow::Ok(())
    })?;
    if server.is_double() {
        assert_eq!(server.count("admin", &WRITES, "pods")?, 5);
        assert_eq!(server.count("", &["update"], "pods/status")?, 1);
    }
    Ok(())
}

fn pod_ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref())
}

#[test]
fn pages_are_of_one_moment_and_objects_survive_a_kill() -> Result<()> {
    let net = Net::try_new()?;
    let mut server = ApiServer::start(&net.host("api")?)?;
    for name in ["a", "b", "c", "d"] {
        server.apply(&config_map(name, "1"))?;
    }
    let api: Api<ConfigMap> = Api::default_namespaced(server.client("admin")?);
    let first = server.block_on(api.list(&ListParams::default().limit(2)))?;
    server.delete("v1", "ConfigMap", "default", "c")?;
    server.apply(&config_map("aa", "1"))?;
    server.apply(&config_map("e", "1"))?;
    let rest = |token: &str| ListParams::default().limit(5).continue_token(token);
    let token = first.metadata.continue_.clone().context("one page")?;
    let second = server.block_on(api.list(&rest(&token)))?;
    let names: Vec<String> = first.iter().chain(second.iter()).map(ConfigMap::name_any).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
    if server.is_double() {
        server.control("compact")?;
        assert_eq!(refusal(server.block_on(api.list(&rest(&token)))).0, 410);
    }
    let before = server.list("v1", "ConfigMap", "default")?;
    server.kill()?;
    server.launch()?;
    assert_eq!(server.list("v1", "ConfigMap", "default")?, before);
    Ok(())
}

#[test]
fn what_the_double_does_not_know_it_refuses_by_name() -> Result<()> {
    let net = Net::try_new()?;
    let server = ApiServer::start(&net.host("api")?)?;
    if !server.is_double() {
        return Ok(());
    }
    let client = server.client("admin")?;
    let asked = |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        refusal(server.block_on(client.request::<serde_json::Value>(request)))
    };
    assert_eq!(asked("/api/v1/podtemplates").0, 404);
    let (code, message) = asked("/api/v1/pods?shardSelector=x");
    assert_eq!((code, message.contains("\"shardSelector\"")), (501, true), "{message}");
    let (code, message) = asked("/api/v1/namespaces/default/pods/x/log");
    assert_eq!((code, message.contains("pods/log")), (501, true), "{message}");
    Ok(())
}
