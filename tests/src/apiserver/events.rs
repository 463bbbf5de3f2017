//! The two APIs of events, which show the same objects by other names. They are kept as those of the core.

use serde_json::Value;

use super::object;

/// The core's names, and those of `events.k8s.io`.
const NAMES: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];
const COUNT: (&str, &str) = ("count", "deprecatedCount");

/// As `events.k8s.io` shows it.
pub(super) fn shown(mut event: Value) -> Value {
    for (core, other) in NAMES.into_iter().chain([COUNT]) {
        rename(&mut event, core, other);
    }
    event
}

/// As it is kept.
pub(super) fn kept(mut event: Value) -> Value {
    for (core, other) in NAMES.into_iter().chain([COUNT]) {
        rename(&mut event, other, core);
    }
    object::map_mut(&mut event).insert("apiVersion".to_owned(), "v1".into());
    event
}

fn rename(event: &mut Value, from: &str, to: &str) {
    let map = object::map_mut(event);
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}
