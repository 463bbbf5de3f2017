//! Reviews: questions that are asked by creating an object, of which nothing is kept.

use serde_json::{Value, json};

use super::bound;
use super::failure::{Answer, Failure};
use super::object;
use super::rbac::{self, Wish};
use super::state::Shared;
use super::users::User;

/// Answers a review.
pub(super) fn answer(shared: &Shared, user: &User, kind: &str, mut review: Value) -> Answer<Value> {
    let status = match kind {
        "TokenReview" => whose(shared, &review),
        "SelfSubjectAccessReview" => {
            let of = |key: &str| object::text(&review, &format!("/spec/resourceAttributes/{key}"));
            let resource = match of("subresource") {
                "" => of("resource").to_owned(),
                sub => format!("{}/{sub}", of("resource")),
            };
            let (verb, group, namespace, name) = (of("verb"), of("group"), of("namespace"), of("name"));
            let wish = Wish { verb, group, resource: &resource, namespace, name };
            json!({"allowed": rbac::is_allowed(&shared.lock(), user, &wish)})
        }
        other => return Err(Failure::not_implemented(format!("how to answer a {other}"))),
    };
    object::map_mut(&mut review).insert("status".to_owned(), status);
    Ok(review)
}

/// Whose token it is. A token that knows no audience is for the server alone, as a real one has it.
fn whose(shared: &Shared, review: &Value) -> Value {
    let token = object::text(review, "/spec/token");
    let audiences = match object::list(review, "/spec/audiences") {
        [] => vec![json!(bound::ISSUER)],
        audiences => audiences.to_vec(),
    };
    if let Some(status) = bound::review(shared, token, &audiences) {
        return status;
    }
    let is_for_us = audiences.contains(&json!(bound::ISSUER));
    match shared.users.of_token(token).filter(|_| is_for_us) {
        Some(user) => json!({"authenticated": true, "user": user.show(), "audiences": [bound::ISSUER]}),
        None => json!({"authenticated": false, "error": "invalid bearer token"}),
    }
}
