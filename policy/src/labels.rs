//! Labels in Cilium's serialised form: `source:key=value`, sorted, each ended by `;`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The labels of an identity: `source:key` → value. Sources are `k8s` and `reserved`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);
