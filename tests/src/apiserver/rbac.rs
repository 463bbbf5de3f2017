//! Who may do what, by the roles and bindings that are stored.

use serde_json::Value;

use super::failure::{Answer, Failure};
use super::kind::Bucket;
use super::object;
use super::state::State;
use super::users::User;

/// Something that a user wants to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// `pods`, or `pods/status`.
    pub(super) resource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// Refuses what a user may not do, in the words of a real server.
pub(super) fn check(state: &State, user: &User, kind: &super::kind::Kind, wish: &Wish<'_>) -> Answer<()> {
    if is_allowed(state, user, wish) {
        return Ok(());
    }
    let place = if wish.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", wish.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
        user.name, wish.verb, wish.resource, wish.group
    );
    Err(Failure::forbidden(kind, wish.name, &why))
}

/// Whether a user may do it.
pub(super) fn is_allowed(state: &State, user: &User, wish: &Wish<'_>) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    let bindings = |plural: &str| state.store.list(&bucket(plural));
    let everywhere = bindings("clusterrolebindings");
    let here = bindings("rolebindings")
        .filter(|binding| !wish.namespace.is_empty() && object::namespace(binding) == wish.namespace);
    everywhere.chain(here).filter(|binding| is_bound(binding, user)).any(|binding| {
        let rules = role_of(state, binding).map(|role| object::list(role, "/rules")).unwrap_or_default();
        rules.iter().any(|rule| allows(rule, wish))
    })
}

fn bucket(plural: &str) -> Bucket {
    Bucket { group: "rbac.authorization.k8s.io".to_owned(), plural: plural.to_owned() }
}

fn is_bound(binding: &Value, user: &User) -> bool {
    object::list(binding, "/subjects").iter().any(|subject| {
        let name = object::text(subject, "/name");
        match object::text(subject, "/kind") {
            "User" => name == user.name,
            "Group" => user.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                user.name == format!("system:serviceaccount:{}:{name}", object::text(subject, "/namespace"))
            }
            _ => false,
        }
    })
}

fn role_of<'a>(state: &'a State, binding: &Value) -> Option<&'a Value> {
    let name = object::text(binding, "/roleRef/name");
    let found = match object::text(binding, "/roleRef/kind") {
        "ClusterRole" => state.store.get(&bucket("clusterroles"), "", name),
        _ => state.store.get(&bucket("roles"), object::namespace(binding), name),
    };
    found.map(|role| &**role)
}

fn allows(rule: &Value, wish: &Wish<'_>) -> bool {
    let has = |field: &str, wanted: &str| {
        let all = object::list(rule, field);
        all.iter().filter_map(Value::as_str).any(|value| value == "*" || value == wanted)
    };
    let sub = wish.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let names = object::list(rule, "/resourceNames");
    has("/verbs", wish.verb)
        && has("/apiGroups", wish.group)
        && (has("/resources", wish.resource) || sub.is_some_and(|any| has("/resources", &any)))
        && (names.is_empty() || names.iter().any(|name| !wish.name.is_empty() && name == wish.name))
}
