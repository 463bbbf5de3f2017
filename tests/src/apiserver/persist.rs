//! The file of the objects: one change a line, written before it is answered, so that a killed server goes on where it
//! was. A file that is opened is written anew without what no longer is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::Bucket;
use super::object;

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) version: u64,
    pub(super) objects: Vec<(Bucket, Value)>,
}

#[derive(Default, Serialize, Deserialize)]
struct Line<'a> {
    version: u64,
    #[serde(default)]
    group: String,
    #[serde(default)]
    plural: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    /// None if it was removed.
    #[serde(default)]
    object: Option<Cow<'a, Value>>,
}

impl Saved {
    /// Reads a file; a last line that was not finished is no line.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let complete = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        let (mut version, mut objects) = (0, BTreeMap::new());
        for text in complete.lines() {
            let line: Line<'_> = serde_json::from_str(text).with_context(|| text.to_owned())?;
            version = line.version;
            if line.plural.is_empty() {
                continue;
            }
            let bucket = Bucket { group: line.group, plural: line.plural };
            let key = (bucket, line.namespace, line.name);
            match line.object {
                Some(object) => objects.insert(key, object.into_owned()),
                None => objects.remove(&key),
            };
        }
        let objects = objects.into_iter().map(|((bucket, _, _), object)| (bucket, object)).collect();
        Ok(Self { version, objects })
    }
}

impl Log {
    /// Opens a file, or makes it.
    pub(super) fn open(path: &Path) -> Result<(Self, Saved)> {
        let saved = if path.exists() { Saved::read(path)? } else { Saved::default() };
        let objects = saved.objects.iter().map(|(bucket, object)| (bucket, object));
        let log = Self::create(path, saved.version, objects)?;
        Ok((log, saved))
    }

    /// Writes a new file in place of what was there.
    pub(super) fn create<'a>(
        path: &Path,
        version: u64,
        objects: impl Iterator<Item = (&'a Bucket, &'a Value)>,
    ) -> Result<Self> {
        let draft = path.with_extension("draft");
        let file = File::create(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
        let mut out = BufWriter::new(file);
        for (bucket, object) in objects {
            out.write_all(&Line::of(version, bucket, object).bytes()?)?;
        }
        out.write_all(&Line { version, ..Line::default() }.bytes()?)?;
        let file = out.into_inner().context("cannot write the state")?;
        std::fs::rename(&draft, path).with_context(|| format!("cannot save {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An object was stored.
    pub(super) fn put(&mut self, version: u64, bucket: &Bucket, object: &Value) -> Result<()> {
        self.write(&Line::of(version, bucket, object))
    }

    /// An object was removed.
    pub(super) fn remove(
        &mut self,
        version: u64,
        bucket: &Bucket,
        namespace: &str,
        name: &str,
    ) -> Result<()> {
        let Bucket { group, plural } = bucket.clone();
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.write(&Line { version, group, plural, namespace, name, object: None })
    }

    fn write(&mut self, line: &Line<'_>) -> Result<()> {
        self.file.write_all(&line.bytes()?).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl<'a> Line<'a> {
    fn of(version: u64, bucket: &Bucket, object: &'a Value) -> Self {
        let Bucket { group, plural } = bucket.clone();
        let (namespace, name) = (object::namespace(object).to_owned(), object::name(object).to_owned());
        Self { version, group, plural, namespace, name, object: Some(Cow::Borrowed(object)) }
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
