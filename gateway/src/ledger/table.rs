//! Tables in parts: a `MeshRecord` holds the records of a table whose keys have the same hash, so that a change writes
//! little and a table may be large.

use std::collections::BTreeMap;

use crds::{Entry, MeshRecord, MeshRecordSpec};
use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{ClusterLedger, failed, is_code, list};
use crate::store::{Bytes, LedgerError, RecordKey, Shared};

/// Parts of a table, and of one that is almost empty most of the time.
const PARTS: u8 = 64;
const FEW_PARTS: u8 = 4;
/// How often a part is read again that somebody else has written.
const ATTEMPTS: usize = 5;
/// Parts that are written at a time.
const TOGETHER: usize = 8;

/// A part of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    table: String,
    entries: BTreeMap<String, Entry>,
    /// The version of the object; `None` where there is none.
    version: Option<String>,
}

/// New records of a part by their keys; `None` where one is gone.
type Edits = BTreeMap<String, Option<String>>;

impl Part {
    /// Whether it is as if these had been written already: an answer may have been lost.
    fn has(&self, edits: &Edits) -> bool {
        let is_there = |(key, text): (&String, &Option<String>)| {
            self.entries.get(key).map(|Entry(found)| found.as_str()) == text.as_deref()
        };
        edits.iter().all(is_there)
    }
}

impl ClusterLedger {
    /// All records of all parts.
    pub(super) async fn load_parts(&self) -> Result<BTreeMap<RecordKey, Bytes>, LedgerError> {
        let mut records = BTreeMap::new();
        let mut parts = self.parts.lock().await;
        parts.clear();
        for object in list(&self.records()).await? {
            let MeshRecordSpec { table, entries } = object.spec;
            let Some(shared) = Shared::named(&table) else {
                return Err(LedgerError(format!(
                    "MeshRecord {}: the table {table:?} is not known: a newer version wrote it",
                    object.metadata.name.unwrap_or_default()
                )));
            };
            for (key, Entry(text)) in &entries {
                records.insert((shared, key.clone()), Bytes(Zeroizing::new(text.clone().into_bytes())));
            }
            let part = Part { table, entries, version: object.metadata.resource_version };
            parts.insert(object.metadata.name.unwrap_or_default(), part);
        }
        Ok(records)
    }

    /// Whether a part has the record.
    pub(super) async fn has_record(&self, table: Shared, key: &str) -> bool {
        let parts = self.parts.lock().await;
        parts.get(&part_name(table, key)).is_some_and(|part| part.entries.contains_key(key))
    }

    /// Writes records, each part once.
    pub(super) async fn keep_records(
        &self,
        changes: impl IntoIterator<Item = (Shared, &String, Option<&Bytes>)>,
    ) -> Result<(), LedgerError> {
        let mut by_part: BTreeMap<String, (Shared, Edits)> = BTreeMap::new();
        for (table, key, bytes) in changes {
            let text = bytes.map(|bytes| String::from_utf8(bytes.0.to_vec())).transpose();
            let text =
                text.map_err(|_binary| LedgerError(format!("{} {key}: it is no text", table.name())))?;
            let (_, edits) = by_part.entry(part_name(table, key)).or_insert_with(|| (table, Edits::new()));
            edits.insert(key.clone(), text);
        }
        let writes = by_part.into_iter().map(|(name, (table, edits))| self.keep_part(name, table, edits));
        futures_util::stream::iter(writes).buffer_unordered(TOGETHER).try_collect().await
    }

    async fn keep_part(&self, name: String, table: Shared, edits: Edits) -> Result<(), LedgerError> {
        let known = self.parts.lock().await.get(&name).cloned();
        let mut part = known.unwrap_or_else(|| Part { table: table.name().to_owned(), ..Part::default() });
        for _attempt in 0..ATTEMPTS {
            let mut wanted = part.clone();
            for (key, text) in &edits {
                match text {
                    Some(text) => drop(wanted.entries.insert(key.clone(), Entry(text.clone()))),
                    None => drop(wanted.entries.remove(key)),
                }
            }
            match self.write_part(&name, wanted).await {
                Ok(written) => {
                    let mut parts = self.parts.lock().await;
                    match written {
                        Some(written) => parts.insert(name, written),
                        None => parts.remove(&name),
                    };
                    return Ok(());
                }
                Err(error) if is_code(&error, 409) || is_code(&error, 404) => {
                    let found = self.records().get_opt(&name).await;
                    let found = found.map_err(|error| failed("get MeshRecord", &name, &error))?;
                    let is_fence = found.is_some() && matches!(table, Shared::Numbers | Shared::Runs);
                    part = found.map_or_else(
                        || Part { version: None, ..part.clone() },
                        |found| Part {
                            table: found.spec.table,
                            entries: found.spec.entries,
                            version: found.metadata.resource_version,
                        },
                    );
                    // Numbers that somebody else has reserved since are his.
                    if is_fence && !part.has(&edits) {
                        return Err(LedgerError(format!(
                            "write MeshRecord {name}: another gateway writes it"
                        )));
                    }
                }
                Err(error) => return Err(failed("write MeshRecord", &name, &error)),
            }
        }
        Err(LedgerError(format!("write MeshRecord {name}: somebody else writes it all the time")))
    }

    /// The part as it was written; `None` where nothing is left of it.
    async fn write_part(&self, name: &str, part: Part) -> Result<Option<Part>, kube::Error> {
        let api = self.records();
        if part.entries.is_empty() {
            if let Some(version) = part.version {
                let preconditions = Preconditions { resource_version: Some(version), uid: None };
                let parameters =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(name, &parameters).await {
                    Err(error) if is_code(&error, 404) => {}
                    deleted => drop(deleted?),
                }
            }
            return Ok(None);
        }
        let spec = MeshRecordSpec { table: part.table.clone(), entries: part.entries.clone() };
        let mut object = MeshRecord::new(name, spec);
        let is_new = part.version.is_none();
        object.metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            resource_version: part.version.clone(),
            ..ObjectMeta::default()
        };
        let written = if is_new {
            api.create(&PostParams::default(), &object).await?
        } else {
            api.replace(name, &PostParams::default(), &object).await?
        };
        Ok(Some(Part { version: written.metadata.resource_version, ..part }))
    }

    fn records(&self) -> Api<MeshRecord> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The object that holds a record.
fn part_name(table: Shared, key: &str) -> String {
    let first = Sha256::digest(key).first().copied().unwrap_or_default();
    let parts = match table {
        Shared::Runs => 1,
        Shared::Relabels => FEW_PARTS,
        Shared::Numbers
        | Shared::Roots
        | Shared::Identities
        | Shared::RevokedKeys
        | Shared::RestingAddresses
        | Shared::Workloads
        | Shared::Tokens => PARTS,
    };
    format!("{}-{:02x}", table.name(), first % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_one_place_and_a_table_several() {
        let name = |key: &str| part_name(Shared::Identities, key);
        assert_eq!(name("65536"), name("65536"));
        let all: std::collections::BTreeSet<_> = (0..1000).map(|key: u32| name(&key.to_string())).collect();
        assert_eq!(all.len(), usize::from(PARTS));
        assert!(all.iter().all(|name| pki::is_dns1123_subdomain(name)), "{all:?}");
    }
}
