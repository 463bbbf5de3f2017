//! A YAML value with the position of each part, so that every refusal can name a line. Knows nothing of kinds.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where something stands in its file; both count from 1, and 0 means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value begins.
    pub position: Position,
    /// The value.
    pub value: Value,
}

/// A YAML value of the JSON model.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Named values, in the order of the file; the parser refuses a name twice.
    Mapping(Vec<Entry>),
}

/// A named value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where the name stands.
    pub position: Position,
    /// The name.
    pub name: String,
    /// The value.
    pub value: Node,
}

/// Text that is no YAML, or more of it than is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid YAML: {message}")]
pub struct InvalidYaml {
    /// Where the parser gave up.
    pub position: Position,
    /// What it says.
    pub message: String,
}

/// How deep values may be nested: much deeper than any manifest is, and no deeper than a thread's stack carries.
const MAX_DEPTH: usize = 40;

/// Reads every document of a file; empty documents are left out.
///
/// # Errors
/// [`InvalidYaml`] at the first document that is none: what follows it cannot be told apart reliably.
pub fn parse(text: &str) -> Result<Vec<Node>, InvalidYaml> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: 20_000_000,
            max_nodes: 20_000_000,
            max_documents: 200_000,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| InvalidYaml {
        position: error.location().map(Position::from).unwrap_or_default(),
        message: error.without_snippet().to_string(),
    })
}

impl From<serde_saphyr::Location> for Position {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

impl Node {
    /// The value of a name, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => {
                entries.iter().find(|entry| entry.name == name).map(|entry| &entry.value)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::Sequence(_) => None,
        }
    }

    /// Where the value at a path like `spec.ingress[0].from[1].podSelector` stands, or the innermost one on the way
    /// that is there; its name where the value begins below it.
    #[must_use]
    pub fn position_of(&self, path: &str) -> Position {
        let (mut nearest, mut position) = (self, self.position);
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let (next, name) = match &nearest.value {
                Value::Sequence(items) => (step.parse().ok().and_then(|index: usize| items.get(index)), None),
                Value::Mapping(entries) => {
                    let entry = entries.iter().find(|entry| entry.name == step);
                    (entry.map(|entry| &entry.value), entry.map(|entry| entry.position))
                }
                Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => {
                    break;
                }
            };
            let Some(next) = next else { break };
            nearest = next;
            position = name.filter(|name| name.line < next.position.line).unwrap_or(next.position);
        }
        position
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// The value without positions, for what lasts longer than the file.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(value) => value.as_str().into(),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                entries.iter().map(|entry| (entry.name.clone(), entry.value.to_json())).collect()
            }
        }
    }

    /// A value without a position.
    #[must_use]
    pub fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => number
                .as_i64()
                .map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Integer),
            serde_json::Value::String(value) => Value::String(value.clone()),
            serde_json::Value::Array(items) => Value::Sequence(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(entries) => Value::Mapping(
                entries
                    .iter()
                    .map(|(name, value)| Entry {
                        position: Position::default(),
                        name: name.clone(),
                        value: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { position: Position::default(), value }
    }
}

impl Node {
    /// The value as JSON for a message, cut where it is long.
    #[must_use]
    pub fn preview(&self) -> String {
        const LONGEST: usize = 60;
        let text = self.to_json().to_string();
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { position: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(|_out_of_range| {
            E::custom(format_args!("{value} is too large for a number of the JSON model"))
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value()?;
            entries.push(Entry { position: name.referenced.into(), name: name.value, value });
        }
        Ok(Value::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_knows_its_line() {
        let nodes =
            parse("---\n---\nkind: Pod\nmetadata:\n  labels:\n    app: web\nlist:\n- 1\n- yes\n").unwrap();
        let [node] = nodes.as_slice() else { panic!("one document, got {nodes:?}") };
        assert_eq!(node.get("kind").unwrap().position, Position { line: 3, column: 7 });
        let app =
            node.get("metadata").and_then(|meta| meta.get("labels")).and_then(|labels| labels.get("app"));
        assert_eq!(app.unwrap().position, Position { line: 6, column: 10 });
        assert_eq!(app.unwrap().as_str(), Some("web"));
        let Value::Sequence(items) = &node.get("list").unwrap().value else { panic!("a list") };
        assert_eq!(
            items.iter().map(|item| item.value.clone()).collect::<Vec<_>>(),
            [Value::Integer(1), Value::String("yes".into())]
        );
        let Value::Mapping(entries) = &node.value else { panic!("a mapping") };
        assert_eq!(entries.iter().map(|entry| entry.position.line).collect::<Vec<_>>(), [3, 4, 7]);
    }

    #[test]
    fn a_name_given_twice_is_refused_with_its_line() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.position.line, 3);
    }

    #[test]
    fn broken_text_is_refused_with_its_line() {
        assert!(parse("a: 1\nb: [\n").unwrap_err().position.line > 1);
        assert!(parse("a:\n\tb: 1\n").is_err());
    }

    #[test]
    fn however_deep_it_is_nested_no_stack_overflows() {
        let parsed = |text: String| {
            // As small as the stack of a thread of the runtime.
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            thread.spawn(move || parse(&text).map(|nodes| nodes.len())).unwrap().join().unwrap()
        };
        let block =
            |depth: usize| (0..depth).map(|level| " ".repeat(level) + "a:\n").collect::<Vec<_>>().concat();
        assert_eq!(parsed(block(MAX_DEPTH)), Ok(1));
        assert!(parsed(block(MAX_DEPTH + 1)).is_err());
        for depth in [64, 255, 10_000] {
            assert!(parsed(format!("a: {}{}", "[".repeat(depth), "]".repeat(depth))).is_err());
            assert!(parsed(block(depth.min(500))).is_err());
        }
    }

    #[test]
    fn json_and_back_is_the_same_value() {
        let node = parse("a: [1, 1.5, true, null, text]\nb: {c: d}\n").unwrap().remove(0);
        assert_eq!(Node::from_json(&node.to_json()).to_json(), node.to_json());
    }
}
