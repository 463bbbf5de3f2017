//! Tokens of service accounts, as pods get them: for an audience, for a time, bound to a pod and its node. They are asked for
//! by the subresource `token` of an account, and reviews know whose they are.

use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::failure::{Answer, Failure};
use super::kind::Bucket;
use super::object;
use super::rbac::{self, Wish};
use super::routes::{Ask, Reply, body};
use super::state::{Shared, State};
use super::users::User;

/// Who makes them, and the audience of a token without another one.
pub(super) const ISSUER: &str = "https://kubernetes.default.svc";
/// How long one is valid, in seconds, and at least.
const LIFETIME: u64 = 3600;
const LEAST: u64 = 600;

/// What they are signed with.
#[derive(Debug)]
pub(super) struct Signer(Vec<u8>);

impl Signer {
    /// That of a folder, which is made if there is none.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("tokens.key");
        if let Ok(key) = std::fs::read(&file) {
            return Ok(Self(key));
        }
        let key = rand::random::<[u8; 32]>().to_vec();
        std::fs::write(file, &key)?;
        Ok(Self(key))
    }

    fn signature(&self, signed: &str) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::new().chain_update(&self.0).chain_update(signed).finalize())
    }

    fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "kid": "double"}).to_string());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{signed}.{}", self.signature(&signed))
    }

    fn claims(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_header, claims) = signed.split_once('.')?;
        let is_ours = self.signature(signed) == signature;
        is_ours
            .then(|| URL_SAFE_NO_PAD.decode(claims).ok())
            .flatten()
            .and_then(|claims| serde_json::from_slice(&claims).ok())
    }
}

/// Answers a `TokenRequest`; `None`: the request is something else.
pub(super) fn answer(shared: &Shared, user: &User, parts: &[&str], ask: &Ask) -> Option<Answer<Reply>> {
    let ["api", "v1", "namespaces", namespace, "serviceaccounts", name, "token"] = parts else { return None };
    Some(request(shared, user, (namespace, name), ask).map(|review| Reply::Object(201, review)))
}

fn request(shared: &Shared, user: &User, (namespace, name): (&str, &str), ask: &Ask) -> Answer<Value> {
    if ask.method != Method::POST {
        return Err(Failure::method_not_allowed());
    }
    let state = shared.lock();
    let kind = state.kinds.get("", "v1", "serviceaccounts").ok_or_else(Failure::unknown_path)?;
    let wish = Wish { verb: "create", group: "", resource: "serviceaccounts/token", namespace, name };
    rbac::check(&state, user, &kind, &wish)?;
    let account = state.find(&kind, namespace, name)?;
    let mut review = body(ask)?;
    let audiences = match object::list(&review, "/spec/audiences") {
        [] => vec![json!(ISSUER)],
        audiences => audiences.to_vec(),
    };
    let seconds = review.pointer("/spec/expirationSeconds").and_then(Value::as_u64).unwrap_or(LIFETIME);
    if seconds < LEAST {
        return Err(Failure::new(
            422,
            "Invalid",
            "spec.expirationSeconds: may not specify a duration less than 10 minutes",
        ));
    }
    let now = seconds_now();
    let mut own = json!({
        "namespace": namespace, "serviceaccount": {"name": name, "uid": object::uid(&account)},
    });
    if review.pointer("/spec/boundObjectRef").is_some_and(|bound| !bound.is_null()) {
        bind(&state, &review, (namespace, name), &mut own)?;
    }
    let claims = json!({
        "aud": audiences, "iss": ISSUER, "iat": now, "nbf": now, "exp": now + seconds,
        "sub": format!("system:serviceaccount:{namespace}:{name}"), "kubernetes.io": own,
    });
    let token = shared.users.signer.sign(&claims);
    let status = json!({"token": token, "expirationTimestamp": object::now()});
    object::map_mut(&mut review).insert("status".to_owned(), status);
    Ok(review)
}

/// Binds a token to the pod of a request.
fn bind(state: &State, review: &Value, (namespace, account): (&str, &str), own: &mut Value) -> Answer<()> {
    let of = |field: &str| object::text(review, &format!("/spec/boundObjectRef/{field}"));
    if of("kind") != "Pod" || of("apiVersion") != "v1" {
        return Err(Failure::not_implemented(format!("tokens that are bound to a {}", of("kind"))));
    }
    let kind = state.kinds.get("", "v1", "pods").ok_or_else(Failure::unknown_path)?;
    let pod = state.find(&kind, namespace, of("name"))?;
    if !of("uid").is_empty() && of("uid") != object::uid(&pod) {
        return Err(Failure::conflict(
            &kind,
            of("name"),
            "the UID in the bound object reference does not match",
        ));
    }
    if object::text(&pod, "/spec/serviceAccountName") != account {
        let why = format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        );
        return Err(Failure::bad_request(why));
    }
    let own = object::map_mut(own);
    own.insert("pod".to_owned(), json!({"name": object::name(&pod), "uid": object::uid(&pod)}));
    let node = object::text(&pod, "/spec/nodeName");
    if !node.is_empty() {
        own.insert("node".to_owned(), json!({"name": node}));
    }
    Ok(())
}

/// What a review says of such a token; `None`: it is none.
pub(super) fn review(shared: &Shared, token: &str, audiences: &[Value]) -> Option<Value> {
    let claims = shared.users.signer.claims(token)?;
    let refused = |why: &str| Some(json!({"authenticated": false, "error": why}));
    if claims.get("exp").and_then(Value::as_u64).is_none_or(|end| end <= seconds_now()) {
        return refused("[invalid bearer token, service account token has expired]");
    }
    let common: Vec<&Value> =
        object::list(&claims, "/aud").iter().filter(|audience| audiences.contains(audience)).collect();
    if common.is_empty() {
        return refused("[invalid bearer token, token audiences are not among those that are asked for]");
    }
    let (own, state) = (claims.get("kubernetes.io").cloned().unwrap_or_default(), shared.lock());
    let namespace = object::text(&own, "/namespace");
    let is_there = |plural: &str, at: &str| {
        let bucket = Bucket { group: String::new(), plural: plural.to_owned() };
        let found = state.store.get(&bucket, namespace, object::text(&own, &format!("{at}/name")));
        found.is_some_and(|found| object::uid(found) == object::text(&own, &format!("{at}/uid")))
    };
    if !is_there("serviceaccounts", "/serviceaccount") {
        return refused("[invalid bearer token, service account has been deleted]");
    }
    if own.get("pod").is_some() && !is_there("pods", "/pod") {
        return refused("[invalid bearer token, pod has been deleted]");
    }
    let mut user = User::named(object::text(&claims, "/sub")).show();
    let mut extra = serde_json::Map::new();
    for (key, at) in [("pod-name", "/pod/name"), ("pod-uid", "/pod/uid"), ("node-name", "/node/name")] {
        if !object::text(&own, at).is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), json!([object::text(&own, at)]));
        }
    }
    object::map_mut(&mut user).insert("extra".to_owned(), Value::Object(extra));
    Some(json!({"authenticated": true, "user": user, "audiences": common}))
}

fn seconds_now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}
