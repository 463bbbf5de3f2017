//! What Helm made of the chart.

use std::path::{Path, PathBuf};

use e2e::json;
use serde_json::Value;

/// What `xtask/helm.py` wrote.
pub(crate) struct Rendered {
    pub(crate) answer: Value,
}

impl Rendered {
    pub(crate) fn read() -> Self {
        let path = std::env::var("OUTRIGGER_RENDERED_CHART").expect("`cargo xtask ci chart` runs this");
        let answer = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Self { answer }
    }

    /// The whole sets, by name.
    pub(crate) fn sets(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.answer["sets"].as_object().unwrap().iter()
    }

    /// All that is no refusal.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = &Value> {
        let effects = json::list(&self.answer, "effects").iter();
        std::iter::once(&self.answer["base"]).chain(self.sets().map(|(_, case)| case)).chain(effects)
    }
}

/// Where the chart is.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/helm/outrigger")
}

pub(crate) fn name(object: &Value) -> &str {
    json::text(&object["metadata"], "name")
}

/// The object that is called `Kind/name`; null if there is none.
pub(crate) fn object<'a>(case: &'a Value, called: &str) -> &'a Value {
    let (kind, wanted) = called.split_once('/').expect("Kind/name");
    let objects = json::list(case, "objects").iter();
    let mut found = objects.filter(|object| object["kind"] == kind && name(object) == wanted);
    found.next().unwrap_or(&Value::Null)
}

/// The objects of a kind, but those of the process that keeps companions.
pub(crate) fn of_kind<'a>(case: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    all_of_kind(case, kind).filter(|object| !is_of_companions(object))
}

/// The objects of a kind that are of the process that keeps companions.
pub(crate) fn of_companions<'a>(case: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    all_of_kind(case, kind).filter(|object| is_of_companions(object))
}

fn all_of_kind<'a>(case: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    json::list(case, "objects").iter().filter(move |object| object["kind"] == kind)
}

fn is_of_companions(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/component"] == "companions"
}

/// The text of the configuration of the process that keeps companions, where there is one.
pub(crate) fn companions_yaml(case: &Value) -> Option<&str> {
    of_companions(case, "ConfigMap").find_map(|map| map["data"]["companions.yaml"].as_str())
}

/// The text of the gateway's configuration.
pub(crate) fn gateway_yaml(case: &Value) -> &str {
    of_kind(case, "ConfigMap")
        .find_map(|map| map["data"]["gateway.yaml"].as_str())
        .expect("a ConfigMap with gateway.yaml")
}
