//! From a positioned value to a type: serde over [`Node`], whose errors name the field, its line and what stands there.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::node::{Entry, Node, Position, Value};

/// A value that does not fit its type.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", Place(self))]
pub struct InvalidField {
    /// Where it stands.
    pub position: Position,
    /// The field, as `spec.ports[0].port`; empty for the whole value.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
}

/// The type's value.
///
/// # Errors
/// [`InvalidField`] for the first part that does not fit.
pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, InvalidField> {
    T::deserialize(node)
}

impl InvalidField {
    /// A refusal of a value that fits its type but not its meaning.
    pub fn new(node: &Node, field: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { position: node.position, field: field.into(), message: message.to_string() }
    }

    /// The same refusal, of a part of something larger.
    #[must_use]
    pub fn within(self, step: Step<'_>, position: Position) -> Self {
        let field = match (step, self.field.as_str()) {
            (Step::Field(name), "") => name.to_owned(),
            (Step::Field(name), rest) if rest.starts_with('[') => format!("{name}{rest}"),
            (Step::Field(name), rest) => format!("{name}.{rest}"),
            (Step::Item(index), "") => format!("[{index}]"),
            (Step::Item(index), rest) if rest.starts_with('[') => format!("[{index}]{rest}"),
            (Step::Item(index), rest) => format!("[{index}].{rest}"),
        };
        let position = if self.position == Position::default() { position } else { self.position };
        Self { position, field, message: self.message }
    }
}

/// One step from a value into a part of it.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// The value of a name.
    Field(&'a str),
    /// The value at an index.
    Item(usize),
}

struct Place<'a>(&'a InvalidField);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.field.is_empty() {
            write!(f, "{}: ", self.0.field)?;
        }
        f.write_str(&self.0.message)
    }
}

impl serde::de::Error for InvalidField {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), ..Self::default() }
    }

    fn unknown_field(_field: &str, _expected: &'static [&'static str]) -> Self {
        Self::custom("unknown field")
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = InvalidField;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidField> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_negative) => visitor.visit_i64(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::Sequence(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Mapping(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        };
        result.map_err(|error| self.placed(error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidField> {
        if self.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, InvalidField> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InvalidField> {
        let result = match self.as_str() {
            Some(name) => visitor.visit_enum(Variant { name }),
            None => Err(serde::de::Error::custom("expected a text that names one of the variants")),
        };
        result.map_err(|error| self.placed(error))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, InvalidField> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Node {
    /// The error with this value's place, unless a part of it has given its own.
    fn placed(&self, error: InvalidField) -> InvalidField {
        if error.position == Position::default() {
            InvalidField { position: self.position, ..error }
        } else {
            error
        }
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = InvalidField;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, InvalidField> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|error| error.within(Step::Item(index), node.position))
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = InvalidField;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, InvalidField> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let key: StrDeserializer<'de, InvalidField> = entry.name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| InvalidField {
            position: entry.position,
            field: entry.name.clone(),
            message: format!("{}, with value {}", error.message, entry.value.preview()),
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, InvalidField> {
        let Some(entry) = self.value.take() else {
            return Err(serde::de::Error::custom("a value was asked for before its name"));
        };
        seed.deserialize(&entry.value)
            .map_err(|error| error.within(Step::Field(&entry.name), entry.value.position))
    }
}

struct Variant<'de> {
    name: &'de str,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = InvalidField;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), InvalidField> {
        let key: StrDeserializer<'de, InvalidField> = self.name.into_deserializer();
        Ok((seed.deserialize(key)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = InvalidField;

    fn unit_variant(self) -> Result<(), InvalidField> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, InvalidField> {
        Err(serde::de::Error::custom("a variant with content cannot be written as a text"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, InvalidField> {
        Err(serde::de::Error::custom("a variant with content cannot be written as a text"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, InvalidField> {
        Err(serde::de::Error::custom("a variant with content cannot be written as a text"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::manifest::node::parse;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        items: Vec<Inner>,
        mode: Option<Mode>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        port: u16,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Audit,
    }

    fn outer(text: &str) -> Result<Outer, InvalidField> {
        decode(&parse(text).unwrap().remove(0))
    }

    #[test]
    fn decodes() {
        let outer = outer("name: a\nitems:\n- port: 1\nmode: audit\n").unwrap();
        assert_eq!(
            outer,
            Outer { name: "a".into(), items: vec![Inner { port: 1 }], mode: Some(Mode::Audit) }
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let error = outer("name: a\nitems:\n- port: 1\n- port: 70000\n").unwrap_err();
        assert_eq!((error.position.line, error.field.as_str()), (4, "items[1].port"));
        assert!(error.message.contains("70000"), "{error}");
        let error = outer("name: 7\n").unwrap_err();
        assert_eq!((error.position.line, error.field.as_str()), (1, "name"));
        assert!(error.message.contains('7'), "{error}");
        let error = outer("name: a\nmode: off\n").unwrap_err();
        assert_eq!((error.position.line, error.field.as_str()), (2, "mode"));
    }

    #[test]
    fn an_unknown_field_is_named_with_the_line_of_its_name() {
        let error = outer("name: a\nitems:\n- port: 1\n  prot: 2\n").unwrap_err();
        assert_eq!((error.position.line, error.field.as_str()), (4, "items[0].prot"));
        assert!(error.message.contains("unknown field"), "{error}");
    }

    #[test]
    fn a_missing_field_is_named_with_the_place_of_what_lacks_it() {
        let error = outer("name: a\nitems:\n- {}\n").unwrap_err();
        assert_eq!((error.position.line, error.field.as_str()), (3, "items[0]"));
        assert!(error.message.contains("port"), "{error}");
    }
}
