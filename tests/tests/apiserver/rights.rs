//! Rights, owners, finalizers, server-side apply, and what tests do to the double.

use std::time::Duration;

use anyhow::Result;
use e2e::apiserver::fixture::{ApiServer, is};
use e2e::net::Net;
use e2e::wait::wait_ok;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{config_map, refusal};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_missing_right_is_named() -> Result<()> {
    let net = Net::try_new()?;
    let account = "system:serviceaccount:shop:gateway";
    let server = ApiServer::start_with(&net.host("api")?, &[account], &[])?;
    let pods: Api<Pod> = Api::all(server.client(account)?);
    let (code, message) = refusal(server.block_on(pods.list(&ListParams::default())));
    let cannot = |verb: &str, place: &str| {
        format!(
            r#"pods is forbidden: User "{account}" cannot {verb} resource "pods" in API group "" {place}"#
        )
    };
    assert_eq!((code, message), (403, cannot("list", "at the cluster scope")));
    server.apply(
        r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: gateway, namespace: shop}]
"#,
    )?;
    let here: Api<Pod> = Api::namespaced(server.client(account)?, "shop");
    assert!(server.block_on(here.list(&ListParams::default()))?.items.is_empty());
    assert_eq!(refusal(server.block_on(pods.list(&ListParams::default()))).0, 403);
    let pod = serde_json::from_value(json!({"metadata": {"name": "x"}}))?;
    let (_, message) = refusal(server.block_on(here.create(&PostParams::default(), &pod)));
    assert_eq!(message, cannot("create", r#"in the namespace "shop""#));
    let (_, message) = refusal(server.block_on(here.delete("x", &DeleteParams::default())));
    assert!(message.starts_with(r#"pods "x" is forbidden: User "#), "{message}");

    let reviews: Api<TokenReview> = Api::all(server.client("admin")?);
    let kubeconfig: serde_json::Value = serde_json::from_slice(&std::fs::read(server.kubeconfig(account))?)?;
    let review = serde_json::from_value(
        json!({"metadata": {}, "spec": {"token": kubeconfig["users"][0]["user"]["token"]}}),
    )?;
    let status = server.block_on(reviews.create(&PostParams::default(), &review))?.status.unwrap_or_default();
    assert_eq!(status.user.and_then(|user| user.username).as_deref(), Some(account));
    Ok(())
}

#[test]
fn finalizers_hold_owners_take_with_them_and_namespaces_empty_themselves() -> Result<()> {
    let net = Net::try_new()?;
    let server = ApiServer::start(&net.host("api")?)?;
    if !server.is_double() {
        // Controllers of a cluster do this, and there are none beside a bare API server.
        return Ok(());
    }
    let gone = |name: &str| {
        wait_ok("the object to be gone", LIMIT, || match server.get("v1", "ConfigMap", "shop", name) {
            Err(error) if is(&error, 404) => Ok(()),
            other => anyhow::bail!("{other:?}"),
        })
    };
    let map = |name: &str, metadata: serde_json::Value| {
        let mut object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}});
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        server.apply(&object.to_string())
    };
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
    let owner = map("owner", json!({"finalizers": ["example.org/held"]}))?.remove(0);
    let of = |uid: &serde_json::Value| json!({"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]});
    map("owned", of(&owner["metadata"]["uid"]))?;
    map("orphan", of(&json!("00000000-0000-4000-a000-000000000000")))?;
    gone("orphan")?;
    server.delete("v1", "ConfigMap", "shop", "owner")?;
    let held = server.get("v1", "ConfigMap", "shop", "owner")?;
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    server.get("v1", "ConfigMap", "shop", "owned")?;
    let maps: Api<ConfigMap> = Api::namespaced(server.client("admin")?, "shop");
    let more = json!({"metadata": {"finalizers": ["example.org/held", "example.org/more"]}});
    assert_eq!(
        refusal(server.block_on(maps.patch("owner", &PatchParams::default(), &Patch::Merge(more)))).0,
        422
    );
    let free = json!({"metadata": {"finalizers": null}});
    server.block_on(maps.patch("owner", &PatchParams::default(), &Patch::Merge(free)))?;
    gone("owner")?;
    gone("owned")?;
    map("last", json!({}))?;
    server.delete("v1", "Namespace", "", "shop")?;
    gone("last")?;
    wait_ok("the namespace to be gone", LIMIT, || match server.get("v1", "Namespace", "", "shop") {
        Err(error) if is(&error, 404) => Ok(()),
        other => anyhow::bail!("{other:?}"),
    })
}

#[test]
fn applies_conflict_share_and_take_fields() -> Result<()> {
    let net = Net::try_new()?;
    let server = ApiServer::start(&net.host("api")?)?;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("admin")?);
    let apply = |manager: &str, force: bool, data: serde_json::Value| {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
        server.block_on(maps.patch("x", &params, &Patch::Apply(object)))
    };
    let first = apply("one", false, json!({"a": "1", "b": "1"}))?;
    assert!(first.metadata.uid.is_some(), "an apply makes what is not there");
    let again = apply("one", false, json!({"a": "1", "b": "1"}))?;
    assert_eq!(again.metadata.resource_version, first.metadata.resource_version, "nothing was changed");
    let (code, message) = refusal(apply("two", false, json!({"a": "2"})));
    assert_eq!(
        (code, message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"one\": .data.a")
    );
    let taken = apply("two", true, json!({"a": "2"}))?;
    assert_eq!(json!(taken.data), json!({"a": "2", "b": "1"}));
    let left = apply("one", false, json!({}))?;
    assert_eq!(json!(left.data), json!({"a": "2"}), "what nobody applies any more is gone");
    let managers: Vec<_> =
        left.metadata.managed_fields.iter().flatten().map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, [Some("one"), Some("two")], "of one who applies an empty map that is left");
    Ok(())
}

#[test]
fn the_double_fails_counts_and_returns_to_yesterday() -> Result<()> {
    let net = Net::try_new()?;
    let server = ApiServer::start_with(&net.host("api")?, &["other"], &["--history", "3"])?;
    if !server.is_double() {
        return Ok(());
    }
    server.apply(&config_map("one", "1"))?;
    let copy = net.folder().join("yesterday");
    server.control(&format!("save?file={}", copy.display()))?;
    let then = server.control("version")?;
    server.apply(&config_map("two", "1"))?;
    server.control(&format!("restore?file={}", copy.display()))?;
    assert_eq!(server.control("version")?, then, "versions go back with the objects");
    assert!(server.get("v1", "ConfigMap", "default", "two").is_err());

    server.control("reset-counts")?;
    server.control("fail?code=500&count=2&verb=get&resource=configmaps")?;
    for _ in 0..2 {
        assert!(is(&server.get("v1", "ConfigMap", "default", "one").unwrap_err(), 500));
    }
    server.get("v1", "ConfigMap", "default", "one")?;
    assert_eq!(server.count("admin", &["get"], "configmaps")?, 3);
    assert_eq!(server.count("other", &[], "")?, 0);
    assert!(server.control("explode").unwrap_err().to_string().contains("does not know /double/explode"));
    Ok(())
}
