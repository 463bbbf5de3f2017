//! From a request to what answers it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::kind::Kind;
use super::kinds::Kinds;
use super::patch::PatchType;
use super::query::Query;
use super::rbac::{self, Wish};
use super::read::{self, Form};
use super::state::Shared;
use super::users::User;
use super::watch::Watch;
use super::write::{self, Writer};
use super::{bound, delete, discovery};

/// What a request is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: Arc<Kind>,
    /// Empty for all, and for kinds that are in none.
    pub(super) namespace: String,
    /// Empty for the collection.
    pub(super) name: String,
    /// `status`, or empty.
    pub(super) sub: String,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// A request that was read.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is answered.
pub(super) enum Reply {
    Object(u16, Value),
    Text(&'static str),
    Watch(Box<Watch>),
}

impl Verb {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    fn of(ask: &Ask, target: &Target) -> Answer<Self> {
        let one = !target.name.is_empty();
        let watch = ask.query.flag("watch")?;
        match (ask.method.as_str(), one) {
            ("GET", _) if watch => Ok(Self::Watch),
            ("GET", true) => Ok(Self::Get),
            ("GET", false) => Ok(Self::List),
            ("POST", false) => Ok(Self::Create),
            ("PUT", true) => Ok(Self::Update),
            ("PATCH", true) => Ok(Self::Patch),
            ("DELETE", true) => Ok(Self::Delete),
            ("DELETE", false) => Ok(Self::DeleteCollection),
            _ => Err(Failure::method_not_allowed()),
        }
    }
}

/// Answers a request over TLS.
pub(super) async fn answer(shared: &Arc<Shared>, ask: &Ask) -> Answer<Reply> {
    let user = authenticate(shared, &ask.headers)?.clone();
    if let Some(word) = ask.path.strip_prefix("/double/") {
        if !user.groups.iter().any(|group| group == "system:masters") {
            return Err(Failure::new(403, "Forbidden", "only the admin controls the double"));
        }
        return super::control::answer(shared, word, &ask.query).map(|value| Reply::Object(200, value));
    }
    let parts: Vec<&str> = ask.path.split('/').filter(|part| !part.is_empty()).collect();
    if let Some(reply) = discovery::answer(&shared.lock().kinds, &parts, ask)? {
        return Ok(reply);
    }
    if let Some(reply) = bound::answer(shared, &user, &parts, ask) {
        return reply;
    }
    let target = target(&shared.lock().kinds, &parts)?;
    let verb = Verb::of(ask, &target)?;
    let resource = target.resource();
    let (latency, failure) = shared.lock().control.request(&user.name, verb.name(), &resource);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match failure {
        Some(failure) => Err(failure),
        None => check_and_dispatch(shared, &user, verb, target, ask),
    }
}

fn authenticate<'a>(shared: &'a Shared, headers: &HeaderMap) -> Answer<&'a User> {
    let given = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer "));
    let user = token.and_then(|token| shared.users.of_token(token));
    user.ok_or_else(|| Failure::new(401, "Unauthorized", "Unauthorized"))
}

impl Target {
    /// `pods`, or `pods/status`.
    pub(super) fn resource(&self) -> String {
        if self.sub.is_empty() {
            self.kind.plural.clone()
        } else {
            format!("{}/{}", self.kind.plural, self.sub)
        }
    }
}

/// Reads a path.
fn target(kinds: &Kinds, parts: &[&str]) -> Answer<Target> {
    let (group, version, rest) = match parts {
        ["api", version, rest @ ..] => ("", version, rest),
        ["apis", group, version, rest @ ..] => (*group, version, rest),
        _ => return Err(Failure::unknown_path()),
    };
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        _ => ("", rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (plural, "", ""),
        [plural, name] => (plural, *name, ""),
        [plural, name, sub] => (plural, *name, *sub),
        _ => return Err(Failure::unknown_path()),
    };
    let kind = kinds.get(group, version, plural).ok_or_else(Failure::unknown_path)?;
    if !kind.namespaced && !namespace.is_empty()
        || kind.namespaced && namespace.is_empty() && !name.is_empty()
    {
        return Err(Failure::unknown_path());
    }
    if !sub.is_empty() && (sub != "status" || !kind.status) {
        let known = sub == "status" || kind.group.is_empty();
        let what = format!("the subresource {plural}/{sub}");
        return Err(if known { Failure::not_implemented(what) } else { Failure::unknown_path() });
    }
    Ok(Target { kind, namespace: namespace.to_owned(), name: name.to_owned(), sub: sub.to_owned() })
}

fn check_and_dispatch(
    shared: &Arc<Shared>,
    user: &User,
    verb: Verb,
    target: Target,
    ask: &Ask,
) -> Answer<Reply> {
    let resource = target.resource();
    let named = named_by(&target, ask);
    // To review oneself needs no right.
    if target.kind.kind != "SelfSubjectAccessReview" {
        let verb = verb.name();
        let wish = Wish {
            verb,
            group: &target.kind.group,
            resource: &resource,
            namespace: &target.namespace,
            name: &named,
        };
        rbac::check(&shared.lock(), user, &target.kind, &wish)?;
        if how_patched(verb, ask) == Some(PatchType::Apply) && !shared.lock().exists(&target) {
            rbac::check(&shared.lock(), user, &target.kind, &Wish { verb: "create", ..wish })?;
        }
    }
    dispatch(shared, user, verb, target, ask)
}

/// The name that a right may be limited to: that of the path, or the one that a list or watch selects.
fn named_by(target: &Target, ask: &Ask) -> String {
    let selected =
        ask.query.text("fieldSelector").strip_prefix("metadata.name=").filter(|name| !name.contains(','));
    if target.name.is_empty() { selected.unwrap_or_default().to_owned() } else { target.name.clone() }
}

fn how_patched(verb: &str, ask: &Ask) -> Option<PatchType> {
    if verb == "patch" { patch_type(&ask.headers).ok() } else { None }
}

fn dispatch(shared: &Arc<Shared>, user: &User, verb: Verb, target: Target, ask: &Ask) -> Answer<Reply> {
    let query = &ask.query;
    let form = form(&ask.headers)?;
    if target.kind.namespaced && target.namespace.is_empty() && verb == Verb::Create {
        return Err(Failure::method_not_allowed());
    }
    if target.kind.review && verb != Verb::Create
        || !target.sub.is_empty() && [Verb::Delete, Verb::Watch].contains(&verb)
    {
        return Err(Failure::method_not_allowed());
    }
    let agent = agent(&ask.headers);
    let writer = Writer { query, agent: &agent };
    let object = match verb {
        Verb::Get => read::get(&shared.lock(), &target, query, form)?,
        Verb::List => read::list(&shared.lock(), &target, query, form)?,
        Verb::Watch => {
            return Watch::open(shared, &user.name, target, query, form)
                .map(|watch| Reply::Watch(Box::new(watch)));
        }
        Verb::Create => {
            let body = body(ask)?;
            if target.kind.review {
                return super::review::answer(shared, user, &target.kind.kind, body)
                    .map(|review| Reply::Object(201, review));
            }
            let made = shared.change(|state| write::create(state, &target, &writer, body))?;
            return Ok(Reply::Object(201, made));
        }
        Verb::Update => {
            let body = body(ask)?;
            shared.change(|state| write::update(state, &target, &writer, body))?
        }
        Verb::Patch => {
            let how = patch_type(&ask.headers)?;
            if how == PatchType::Apply {
                let (made, object) =
                    shared.change(|state| write::apply(state, &target, &writer, &ask.body))?;
                return Ok(Reply::Object(if made { 201 } else { 200 }, object));
            }
            shared.change(|state| write::patch(state, &target, &writer, how, &ask.body))?
        }
        Verb::Delete => {
            let options = options(ask)?;
            shared.change(|state| delete::delete(state, &target, query, &options))?
        }
        Verb::DeleteCollection => {
            let options = options(ask)?;
            shared.change(|state| delete::delete_all(state, &target, query, &options))?
        }
    };
    Ok(Reply::Object(200, object))
}

/// How the client wants objects.
fn form(headers: &HeaderMap) -> Answer<Form> {
    let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    for offer in accept.split(',').map(str::trim) {
        let mut parts = offer.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !["application/json", "*/*", "application/*"].contains(&media) {
            continue;
        }
        match parts.find_map(|part| part.strip_prefix("as=")) {
            None => return Ok(Form::Whole),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata),
            Some(_) => {}
        }
    }
    Err(Failure::new(406, "NotAcceptable", format!("only application/json is served, not {accept:?}")))
}

fn content_type(headers: &HeaderMap) -> &str {
    let given =
        headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim()
}

/// The object of a request.
pub(super) fn body(ask: &Ask) -> Answer<Value> {
    match content_type(&ask.headers) {
        "" | "application/json" => {}
        other => return Err(Failure::unsupported_media(other, "application/json")),
    }
    serde_json::from_slice(&ask.body)
        .map_err(|error| Failure::bad_request(format!("the object is no JSON: {error}")))
}

/// The options of a deletion.
fn options(ask: &Ask) -> Answer<Value> {
    if ask.body.is_empty() { Ok(json!({})) } else { body(ask) }
}

fn patch_type(headers: &HeaderMap) -> Answer<PatchType> {
    match content_type(headers) {
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        other => Err(Failure::unsupported_media(
            other,
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

/// What a client calls itself, which is the manager of fields for those that do not name one.
fn agent(headers: &HeaderMap) -> String {
    let given =
        headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    given.split('/').next().unwrap_or_default().to_owned()
}
