//! How last good versions of objects are kept over restarts: as bytes in the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::Good;
use crate::manifest::{Manifest, Node, Object, ObjectKey};

#[derive(Serialize, Deserialize)]
struct Kept {
    file: String,
    object: serde_json::Value,
}

/// The bytes of versions, by name; `None` for objects to forget.
#[must_use]
pub fn encode(versions: &[(ObjectKey, Option<Good>)]) -> BTreeMap<String, Option<Vec<u8>>> {
    let bytes = |good: &Good| {
        let Good { file, raw, object: _ } = good;
        serde_json::to_vec(&Kept { file: file.clone(), object: raw.clone() }).ok()
    };
    versions.iter().map(|(key, good)| (key.to_string(), good.as_ref().and_then(bytes))).collect()
}

/// The versions that are still understood.
#[must_use]
pub fn decode(kept: &BTreeMap<String, Vec<u8>>) -> BTreeMap<ObjectKey, Good> {
    let mut all = BTreeMap::new();
    for (name, bytes) in kept {
        let decoded = serde_json::from_slice::<Kept>(bytes).ok();
        let known =
            decoded.and_then(|Kept { file, object }| remembered(&object).map(|known| (file, object, known)));
        let Some((file, raw, (key, object))) = known else {
            tracing::warn!(object = name, "a kept object is not understood any more");
            continue;
        };
        all.insert(key, Good { file, raw, object });
    }
    all
}

/// The object of a remembered text; `None` if this version refuses what an earlier one accepted.
fn remembered(raw: &serde_json::Value) -> Option<(ObjectKey, Object)> {
    let manifest = Manifest::read(Node::from_json(raw));
    manifest.key.zip(manifest.object.ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_understood_by_the_next_process() {
        let raw = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        let (key, object) = remembered(&raw).unwrap();
        let good = Good { file: "a.yaml".into(), raw, object };
        let kept: BTreeMap<_, _> = encode(&[(key.clone(), Some(good.clone()))])
            .into_iter()
            .map(|(name, bytes)| (name, bytes.unwrap()))
            .chain([("Pod/a/b".to_owned(), b"{}".to_vec())])
            .collect();
        assert_eq!(decode(&kept), BTreeMap::from([(key.clone(), good)]));
        assert_eq!(encode(&[(key, None)]), BTreeMap::from([("Namespace/shop".to_owned(), None)]));
    }
}
