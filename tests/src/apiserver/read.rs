//! Getting and listing objects.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::kind::{Kind, Shape};
use super::object;
use super::query::{Match, Query};
use super::routes::Target;
use super::selector::Selector;
use super::state::State;
use super::store::Objects;

/// How a client wants objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

/// Where a list goes on.
struct Continue {
    version: u64,
    after: (String, String),
}

/// Answers `get`.
pub(super) fn get(state: &State, target: &Target, query: &Query, form: Form) -> Answer<Value> {
    query.only(&["resourceVersion"])?;
    not_from_the_future(state, query.number("resourceVersion")?.unwrap_or(0))?;
    let object = state.find(&target.kind, &target.namespace, &target.name)?;
    Ok(shown(&target.kind, &object, form).into_owned())
}

/// Answers `list`.
pub(super) fn list(state: &State, target: &Target, query: &Query, form: Form) -> Answer<Value> {
    query.only(&[
        "limit",
        "continue",
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "watch",
        "allowWatchBookmarks",
    ])?;
    let kind = &target.kind;
    let selector =
        Selector::parse(kind, &target.namespace, query.text("labelSelector"), query.text("fieldSelector"))?;
    let from = Continue::parse(query.text("continue"))?;
    let version = version_of(state, query, from.as_ref())?;
    let past: Option<Objects> = match version {
        Some(version) => {
            let why = "The provided continue parameter is too old to display a consistent list result.";
            Some(state.store.at(&kind.bucket(), version).map_err(|_forgotten| Failure::expired(why))?)
        }
        None => None,
    };
    let all: Box<dyn Iterator<Item = &Arc<Value>>> = match &past {
        Some(past) => Box::new(past.values()),
        None => Box::new(state.store.list(&kind.bucket())),
    };
    let after = from.map(|from| from.after).unwrap_or_default();
    let rest = all.filter(|object| selector.matches(object) && key(object) > (&*after.0, &*after.1));
    let limit =
        query.number("limit")?.filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
    let mut found: Vec<&Arc<Value>> = rest.collect();
    let left = limit.map_or(0, |limit| found.len().saturating_sub(limit));
    found.truncate(found.len() - left);
    let version = version.unwrap_or(state.store.version());
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (Some(last), true) = (found.last(), left > 0) {
        metadata = json!({
            "resourceVersion": version.to_string(),
            "continue": Continue::show(version, last),
            "remainingItemCount": left,
        });
    }
    let items: Vec<Value> = found.into_iter().map(|object| item(kind, object, form)).collect();
    Ok(as_list(kind, form, &metadata, &items))
}

/// A list of objects.
pub(super) fn as_list(kind: &Kind, form: Form, metadata: &Value, items: &[Value]) -> Value {
    let (list, api_version) = match form {
        Form::Whole => (format!("{}List", kind.kind), kind.api_version()),
        Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
    };
    json!({"kind": list, "apiVersion": api_version, "metadata": metadata, "items": items})
}

/// An object as it is shown in this version of its kind.
pub(super) fn shown<'a>(kind: &Kind, object: &'a Value, form: Form) -> Cow<'a, Value> {
    if form == Form::Metadata {
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        return Cow::Owned(
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
        );
    }
    let api_version = kind.api_version();
    if object::text(object, "/apiVersion") == api_version {
        return Cow::Borrowed(object);
    }
    let mut object =
        if kind.plural == "events" { super::events::shown(object.clone()) } else { object.clone() };
    object::map_mut(&mut object).insert("apiVersion".to_owned(), api_version.into());
    Cow::Owned(object)
}

/// The same within a list, where objects of Kubernetes' own types do not say their kind.
fn item(kind: &Kind, object: &Value, form: Form) -> Value {
    let mut object = shown(kind, object, form).into_owned();
    if let (Shape::Typed(_), Form::Whole) = (&kind.shape, form) {
        let map = object::map_mut(&mut object);
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

/// The version that a list is asked for; none is the newest.
fn version_of(state: &State, query: &Query, from: Option<&Continue>) -> Answer<Option<u64>> {
    if let Some(from) = from {
        if !query.text("resourceVersion").is_empty() {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return Ok(Some(from.version));
    }
    let asked = query.number("resourceVersion")?;
    match (asked, query.version_match()?) {
        (None, Some(_)) => {
            Err(Failure::bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        }
        (Some(0), Some(Match::Exact)) => {
            Err(Failure::bad_request("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
        }
        (Some(version), Some(Match::Exact)) => {
            not_from_the_future(state, version)?;
            Ok(Some(version))
        }
        (Some(version), _) => not_from_the_future(state, version).map(|()| None),
        (None, None) => Ok(None),
    }
}

/// Refuses versions that are not there yet, as after the restoration of an older state.
fn not_from_the_future(state: &State, version: u64) -> Answer<()> {
    let current = state.store.version();
    if version <= current {
        return Ok(());
    }
    let message = format!("Too large resource version: {version}, current: {current}");
    let mut failure = Failure::new(504, "Timeout", message);
    failure.details = json!({
        "retryAfterSeconds": 1,
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
    });
    Err(failure)
}

fn key(object: &Value) -> (&str, &str) {
    (object::namespace(object), object::name(object))
}

impl Continue {
    fn parse(token: &str) -> Answer<Option<Self>> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        match bytes.and_then(|bytes| serde_json::from_slice::<(u64, String, String)>(&bytes).ok()) {
            Some((version, namespace, name)) => Ok(Some(Self { version, after: (namespace, name) })),
            None => Err(Failure::bad_request(format!("continue key is not valid: {token:?}"))),
        }
    }

    fn show(version: u64, last: &Value) -> String {
        let (namespace, name) = key(last);
        BASE64_URL_SAFE_NO_PAD.encode(json!([version, namespace, name]).to_string())
    }
}
