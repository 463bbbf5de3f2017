//! Cases as data: a file is a feature; what it says is read strictly, and errors name the file and the case.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use gateway::manifest::decode::decode;
use gateway::manifest::node::{self, Node};
use serde::Deserialize;
use serde_json::Value;

use super::table::{Kind, Table};

/// A feature and its cases.
#[derive(Debug)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// A case: a world, and who may reach whom in it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// What is probed beside the usual.
    pub probes: Vec<Kind>,
    /// One after the other, each with the verdicts after it.
    pub steps: Vec<Step>,
}

/// A change of the world.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Objects that are created or updated.
    pub put: Vec<Value>,
    /// Objects that go, as `Kind/namespace/name`.
    pub delete: Vec<String>,
    /// All labels that a member of the cast (`x/a`) or a namespace (`x`) has from now on.
    pub relabel: BTreeMap<String, BTreeMap<String, String>>,
    /// The verdicts.
    pub table: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    feature: String,
    #[serde(rename = "about")]
    _about: String,
    cases: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    #[serde(default)]
    probes: Vec<String>,
    #[serde(default)]
    objects: Vec<Value>,
    table: Vec<String>,
    #[serde(default)]
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    #[serde(default)]
    put: Vec<Value>,
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    relabel: BTreeMap<String, BTreeMap<String, String>>,
    table: Vec<String>,
}

/// All files of a folder, by name.
pub fn load(folder: &Path) -> Result<Vec<Feature>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let read = |path: &Path| parse(&std::fs::read_to_string(path)?);
    paths.iter().map(|path| read(path).with_context(|| path.display().to_string())).collect()
}

/// One file.
pub fn parse(text: &str) -> Result<Feature> {
    let documents = node::parse(text)?;
    let [document] = documents.as_slice() else { bail!("one document is expected") };
    let file: File = decode(document).map_err(|error| anyhow!("line {}: {error}", error.position.line))?;
    let nodes = match document.get("cases").map(|cases| &cases.value) {
        Some(node::Value::Sequence(nodes)) => nodes.as_slice(),
        _ => bail!("cases is no list"),
    };
    let cases: Vec<Case> = nodes.iter().map(case).collect::<Result<_>>()?;
    for (index, case) in cases.iter().enumerate() {
        if cases.iter().take(index).any(|other| other.name == case.name) {
            bail!("case {:?} occurs twice", case.name);
        }
    }
    if cases.len() != file.cases.len() {
        bail!("{} cases of {} were read", cases.len(), file.cases.len());
    }
    Ok(Feature { name: file.feature, cases })
}

fn case(node: &Node) -> Result<Case> {
    let name = node.get("name").and_then(Node::as_str).unwrap_or("without a name");
    let context = || format!("case {name:?}");
    let raw: RawCase = decode(node)
        .map_err(|error| anyhow!("line {}: {error}", error.position.line))
        .with_context(context)?;
    let first =
        Step { put: raw.objects, table: Table::parse(&raw.table).with_context(context)?, ..Step::default() };
    let mut steps = vec![first];
    for (index, step) in raw.steps.into_iter().enumerate() {
        let table = Table::parse(&step.table).with_context(|| format!("{}, steps[{index}]", context()))?;
        steps.push(Step { put: step.put, delete: step.delete, relabel: step.relabel, table });
    }
    let probes =
        raw.probes.iter().map(|text| Kind::parse(text)).collect::<Result<_>>().with_context(context)?;
    Ok(Case { name: raw.name, probes, steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "feature: f\nabout: a\ncases:\n  - name: first\n    table: [deny * -> x/a]\n";

    #[test]
    fn what_is_unknown_is_named_with_its_case() {
        assert_eq!(parse(GOOD).unwrap().cases.len(), 1);
        for (bad, words) in [
            (format!("{GOOD}    prbes: []\n"), ["first", "prbes"]),
            (format!("{GOOD}    steps:\n      - tabel: []\n"), ["first", "tabel"]),
            (GOOD.replace("x/a]", "q/a]"), ["first", "q/a"]),
            (GOOD.replace("deny", "forbid"), ["first", "forbid"]),
            (GOOD.replace("about", "abut"), ["line 2", "abut"]),
            (format!("{GOOD}  - name: first\n    table: []\n"), ["first", "twice"]),
        ] {
            let error = format!("{:#}", parse(&bad).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
