//! What tests do to the server, by `/double/…` on its socket: connections end or freeze, requests are counted, delayed
//! and refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::query::Query;
use super::state::Shared;

/// The switches.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Raised to end all watches.
    pub(super) cut: u64,
    /// Users whose watches say nothing.
    frozen: BTreeSet<String>,
    /// Requests so far, by user, verb and resource.
    counts: BTreeMap<(String, String, String), u64>,
    latency: Duration,
    /// The next so many requests that match are refused.
    failures: Vec<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    code: u16,
    left: u64,
    user: String,
    verb: String,
    resource: String,
}

impl Control {
    /// Notes a request; how long it has to wait, and why it is refused if it is.
    pub(super) fn request(&mut self, user: &str, verb: &str, resource: &str) -> (Duration, Option<Failure>) {
        let key = (user.to_owned(), verb.to_owned(), resource.to_owned());
        *self.counts.entry(key).or_default() += 1;
        let like = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let hit = self.failures.iter_mut().find(|trouble| {
            trouble.left > 0
                && like(&trouble.user, user)
                && like(&trouble.verb, verb)
                && like(&trouble.resource, resource)
        });
        let failure = hit.map(|trouble| {
            trouble.left -= 1;
            trouble.failure()
        });
        (self.latency, failure)
    }

    /// Whether the watches of a user say nothing.
    pub(super) fn is_frozen(&self, user: &str) -> bool {
        self.frozen.contains(user)
    }

    fn show_counts(&self) -> Value {
        self.counts
            .iter()
            .map(|((user, verb, resource), count)| {
                json!({"user": user, "verb": verb, "resource": resource, "count": count})
            })
            .collect()
    }
}

impl Trouble {
    fn failure(&self) -> Failure {
        let message = "a failure that the test asked for";
        match self.code {
            429 => {
                let mut failure = Failure::new(429, "TooManyRequests", message);
                failure.details = json!({"retryAfterSeconds": 1});
                failure
            }
            500 => Failure::new(500, "InternalError", message),
            503 => Failure::new(503, "ServiceUnavailable", message),
            504 => Failure::new(504, "Timeout", message),
            code => Failure::new(code, "Unknown", message),
        }
    }
}

/// Answers a request to `/double/<word>`.
pub(super) fn answer(shared: &Shared, word: &str, query: &Query) -> Answer<Value> {
    match word {
        "counts" => return Ok(shared.lock().control.show_counts()),
        "version" => return Ok(json!(shared.lock().store.version())),
        _ => {}
    }
    shared.change(|state| {
        match word {
            "reset-counts" => state.control.counts.clear(),
            "drop-watches" => state.control.cut += 1,
            "freeze" => {
                state.control.frozen.insert(query.text("user").to_owned());
            }
            "thaw" => {
                state.control.frozen.remove(query.text("user"));
            }
            "compact" => state.store.compact(),
            "latency" => state.control.latency = Duration::from_millis(query.number("ms")?.unwrap_or(0)),
            "fail" => state.control.failures = vec![trouble(query)?],
            "save" => state.store.save(Path::new(query.text("file"))).map_err(|error| bad(&error))?,
            "restore" => {
                state.store.restore(Path::new(query.text("file"))).map_err(|error| bad(&error))?;
                state.begin()?;
                state.control.cut += 1;
            }
            other => return Err(Failure::not_implemented(format!("/double/{other}"))),
        }
        Ok(json!({}))
    })
}

fn trouble(query: &Query) -> Answer<Trouble> {
    let code = query.number("code")?.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    let [user, verb, resource] = ["user", "verb", "resource"].map(|key| query.text(key).to_owned());
    Ok(Trouble { code, left: query.number("count")?.unwrap_or(1), user, verb, resource })
}

fn bad(error: &anyhow::Error) -> Failure {
    Failure::bad_request(format!("{error:#}"))
}
