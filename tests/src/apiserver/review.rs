//! Reviews: questions that are asked by creating an object, of which nothing is kept.

use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::object;
use super::state::Shared;

/// Answers a review.
pub(super) fn answer(shared: &Shared, kind: &str, mut review: Value) -> Answer<Value> {
    let status = match kind {
        "TokenReview" => match shared.users.of_token(object::text(&review, "/spec/token")) {
            Some(user) => json!({"authenticated": true, "user": user.show()}),
            None => json!({"authenticated": false, "error": "invalid bearer token"}),
        },
        other => return Err(Failure::not_implemented(format!("how to answer a {other}"))),
    };
    object::map_mut(&mut review).insert("status".to_owned(), status);
    Ok(review)
}
