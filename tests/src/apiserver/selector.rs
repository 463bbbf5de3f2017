//! Label and field selectors.

use serde_json::Value;

use super::failure::{Answer, Failure};
use super::kind::Kind;
use super::object;

/// Which objects of a kind are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    namespace: String,
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Is(String, Vec<String>),
    IsNot(String, Vec<String>),
    Exists(String),
    ExistsNot(String),
}

impl Selector {
    /// Reads the selectors of a query; an empty namespace means all.
    pub(super) fn parse(kind: &Kind, namespace: &str, labels: &str, fields: &str) -> Answer<Self> {
        let labels = split(labels).map(requirement).collect::<Answer<_>>()?;
        let fields = split(fields).map(|text| field(kind, text)).collect::<Answer<_>>()?;
        Ok(Self { namespace: namespace.to_owned(), labels, fields })
    }

    /// Whether an object is asked for.
    pub(super) fn matches(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || object::namespace(object) == self.namespace)
            && self.labels.iter().all(|requirement| requirement.matches(object))
            && self
                .fields
                .iter()
                .all(|(pointer, equal, value)| (object::text(object, pointer) == value) == *equal)
    }

    /// Selects only the object of this name.
    pub(super) fn also_named(&mut self, name: &str) {
        self.fields.push(("/metadata/name".to_owned(), true, name.to_owned()));
    }
}

impl Requirement {
    fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| {
            object.pointer("/metadata/labels").and_then(|all| all.get(key)).and_then(Value::as_str)
        };
        match self {
            Self::Is(key, values) => {
                label(key).is_some_and(|found| values.iter().any(|value| value == found))
            }
            Self::IsNot(key, values) => {
                label(key).is_none_or(|found| values.iter().all(|value| value != found))
            }
            Self::Exists(key) => label(key).is_some(),
            Self::ExistsNot(key) => label(key).is_none(),
        }
    }
}

/// Parts between commas that are not in parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn requirement(text: &str) -> Answer<Requirement> {
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    let many = |key: &str, values: &str| {
        let inside = values.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        inside.map(|list| {
            (key.trim().to_owned(), list.split(',').map(|value| value.trim().to_owned()).collect())
        })
    };
    let read = if let Some((key, value)) = text.split_once("!=") {
        let (key, values) = one(key, value);
        Requirement::IsNot(key, values)
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        let (key, values) = one(key, value);
        Requirement::Is(key, values)
    } else if let Some((key, values)) = text.split_once(" notin ").and_then(|(key, values)| many(key, values))
    {
        Requirement::IsNot(key, values)
    } else if let Some((key, values)) = text.split_once(" in ").and_then(|(key, values)| many(key, values)) {
        Requirement::Is(key, values)
    } else if let Some(key) = text.strip_prefix('!') {
        Requirement::ExistsNot(key.trim().to_owned())
    } else {
        Requirement::Exists(text.to_owned())
    };
    let (Requirement::Is(key, _)
    | Requirement::IsNot(key, _)
    | Requirement::Exists(key)
    | Requirement::ExistsNot(key)) = &read;
    let known = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if key.is_empty() || !key.chars().all(known) {
        return Err(Failure::bad_request(format!("unable to parse requirement: {text:?}")));
    }
    Ok(read)
}

fn field(kind: &Kind, text: &str) -> Answer<(String, bool, String)> {
    let parts = text.split_once("!=").map(|parts| (parts, false));
    let parts =
        parts.or_else(|| text.split_once("==").or_else(|| text.split_once('=')).map(|parts| (parts, true)));
    let Some(((path, value), equal)) = parts else {
        return Err(Failure::bad_request(format!("invalid selector: {text:?}; can't understand it")));
    };
    let pod = kind.plural == "pods" && ["spec.nodeName", "status.phase", "status.podIP"].contains(&path);
    let secret = kind.plural == "secrets" && path == "type";
    let event = kind.plural == "events"
        && (path.starts_with("involvedObject.") || ["reason", "type"].contains(&path));
    let namespace = kind.plural == "namespaces" && path == "status.phase";
    if !pod && !secret && !event && !namespace && path != "metadata.name" && path != "metadata.namespace" {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    Ok((format!("/{}", path.replace('.', "/")), equal, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apiserver::kinds::Kinds;

    fn selected(labels: &str, fields: &str) -> Vec<usize> {
        let pods = Kinds::built_in().get("", "v1", "pods").unwrap();
        let selector = Selector::parse(&pods, "a", labels, fields).unwrap();
        let all = [
            json!({"metadata": {"name": "one", "namespace": "a", "labels": {"app": "web", "tier": "x"}}, "spec": {"nodeName": "n1"}}),
            json!({"metadata": {"name": "two", "namespace": "a", "labels": {"app": "db"}}, "spec": {"nodeName": "n2"}}),
            json!({"metadata": {"name": "three", "namespace": "a"}}),
            json!({"metadata": {"name": "one", "namespace": "b", "labels": {"app": "web"}}}),
        ];
        (0..all.len()).filter(|index| selector.matches(&all[*index])).collect()
    }

    #[test]
    fn selectors_select() {
        assert_eq!(selected("", ""), [0, 1, 2]);
        assert_eq!(selected("app=web", ""), [0]);
        assert_eq!(selected("app in (web, db),tier", ""), [0]);
        assert_eq!(selected("app notin (web)", ""), [1, 2]);
        assert_eq!(selected("app!=web", ""), [1, 2]);
        assert_eq!(selected("!app", ""), [2]);
        assert_eq!(selected("", "spec.nodeName=n2"), [1]);
        assert_eq!(selected("", "metadata.name!=one,spec.nodeName="), [2]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let pods = Kinds::built_in().get("", "v1", "pods").unwrap();
        assert_eq!(Selector::parse(&pods, "", "a b c", "").unwrap_err().code, 400);
        let failure = Selector::parse(&pods, "", "", "spec.hostNetwork=true").unwrap_err();
        assert_eq!(failure.message, "field label not supported: spec.hostNetwork");
    }
}
