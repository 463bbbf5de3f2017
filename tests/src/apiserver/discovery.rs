//! What is served: versions, groups and resources, as clients ask for them before anything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::kind::Kind;
use super::kinds::Kinds;
use super::routes::{Ask, Reply};

/// What this double passes for.
const MINOR: &str = "36";

/// Answers what is no request for objects; none if it is one.
pub(super) fn answer(kinds: &Kinds, parts: &[&str], ask: &Ask) -> Answer<Option<Reply>> {
    let aggregated = wants_aggregated(ask);
    let object = match parts {
        ["healthz" | "livez" | "readyz"] => return Ok(Some(Reply::Text("ok"))),
        ["version"] => json!({
            "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+double"), "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
            "platform": "linux/amd64",
        }),
        ["openapi", "v3", rest @ ..] => super::openapi::answer(kinds, rest)?,
        ["api"] if aggregated => aggregated_groups(kinds, true),
        ["apis"] if aggregated => aggregated_groups(kinds, false),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let names: BTreeSet<&str> =
                kinds.iter().map(|kind| kind.group.as_str()).filter(|name| !name.is_empty()).collect();
            let groups: Vec<Value> = names.into_iter().map(|name| group(kinds, name)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] if kinds.iter().any(|kind| kind.group == *name) => {
            let mut found = group(kinds, name);
            let map = super::object::map_mut(&mut found);
            map.insert("kind".to_owned(), "APIGroup".into());
            map.insert("apiVersion".to_owned(), "v1".into());
            found
        }
        ["api", version] => resources(kinds, "", version)?,
        ["apis", group, version] => resources(kinds, group, version)?,
        _ => return Ok(None),
    };
    if ask.method != http::Method::GET {
        return Err(Failure::method_not_allowed());
    }
    Ok(Some(Reply::Object(200, object)))
}

fn wants_aggregated(ask: &Ask) -> bool {
    let accept =
        ask.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept
        .split(',')
        .next()
        .is_some_and(|first| first.contains("as=APIGroupDiscoveryList") && first.contains("v=v2"))
}

/// The versions of a group, best first.
fn versions(kinds: &Kinds, group: &str) -> Vec<String> {
    let mut found: Vec<String> =
        kinds.iter().filter(|kind| kind.group == group).map(|kind| kind.version.clone()).collect();
    found.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    found.dedup();
    found
}

/// The order of versions: stable ones first, then beta, then alpha, then all others.
fn rank(version: &str) -> (u8, u64, u64) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let rest = version.strip_prefix('v').unwrap_or_default();
    if let Some((major, minor)) = rest.split_once("beta") {
        (2, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (1, number(major), number(minor))
    } else {
        (if rest.parse::<u64>().is_ok() { 3 } else { 0 }, number(rest), 0)
    }
}

fn group(kinds: &Kinds, name: &str) -> Value {
    let show = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions(kinds, name).iter().map(show).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn of_version<'a>(kinds: &'a Kinds, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> {
    kinds.iter().filter(move |kind| kind.group == group && kind.version == version)
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Answer<Value> {
    let mut resources = Vec::new();
    let mut name = String::new();
    for kind in of_version(kinds, group, version) {
        name = kind.api_version();
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": kind.verbs(), "shortNames": kind.short, "categories": kind.categories,
        }));
        if kind.status {
            resources.push(json!({
                "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": ["get", "patch", "update"],
            }));
        }
    }
    if resources.is_empty() {
        return Err(Failure::unknown_path());
    }
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}))
}

fn aggregated_groups(kinds: &Kinds, core: bool) -> Value {
    let names: BTreeSet<&str> =
        kinds.iter().map(|kind| kind.group.as_str()).filter(|name| name.is_empty() == core).collect();
    let show = |kind: &Arc<Kind>| {
        let response = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let status =
            json!([{"subresource": "status", "responseKind": response, "verbs": ["get", "patch", "update"]}]);
        json!({
            "resource": kind.plural, "singularResource": kind.singular, "responseKind": response,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "verbs": kind.verbs(),
            "shortNames": kind.short, "categories": kind.categories,
            "subresources": if kind.status { status } else { json!([]) },
        })
    };
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let versions: Vec<Value> = versions(kinds, name)
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = of_version(kinds, name, version).map(show).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}
