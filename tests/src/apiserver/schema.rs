//! Structural schemas of custom resources, read once when a definition is stored. What a schema says that is not known
//! here refuses the definition.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::cel::Rule;
use super::failure::Cause;
use super::object;

/// What a value has to look like.
#[expect(clippy::struct_excessive_bools, reason = "they are keywords of schemas")]
#[derive(Debug, Default)]
pub(super) struct Schema {
    /// Empty where any type will do.
    pub(super) kind: String,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Option<Box<Schema>>,
    pub(super) items: Option<Box<Schema>>,
    pub(super) required: Vec<String>,
    pub(super) nullable: bool,
    pub(super) preserve: bool,
    pub(super) int_or_string: bool,
    /// An object with `apiVersion`, `kind` and `metadata`.
    pub(super) embedded: bool,
    pub(super) default: Option<Value>,
    pub(super) choices: Vec<Value>,
    pub(super) pattern: Option<Regex>,
    pub(super) format: String,
    pub(super) limits: Limits,
    pub(super) list: ListType,
    pub(super) atomic_map: bool,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    pub(super) rules: Vec<Rule>,
}

/// Bounds of a value.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ListType {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their values.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

const FORMATS: [&str; 12] = [
    "int32",
    "int64",
    "float",
    "double",
    "date-time",
    "date",
    "duration",
    "ipv4",
    "ipv6",
    "cidr",
    "uuid",
    "byte",
];

impl Schema {
    /// Reads the schema of a version.
    pub(super) fn root(value: &Value, path: &str) -> Result<Self, Vec<Cause>> {
        let mut reader = Reader { causes: Vec::new() };
        let mut schema = reader.schema(value, path, true);
        schema.embedded = true;
        let mut causes = reader.causes;
        if schema.kind != "object" {
            causes.push(Cause::invalid(format!("{path}.type"), "Invalid value: must be object at the root"));
        }
        super::cel::check(&schema, path, &mut causes);
        if causes.is_empty() { Ok(schema) } else { Err(causes) }
    }
}

/// Reads schemas, and collects what is wrong with them.
struct Reader {
    causes: Vec<Cause>,
}

impl Reader {
    /// Reads a schema; one that only constrains values (`anyOf`) needs no type.
    fn schema(&mut self, value: &Value, path: &str, structural: bool) -> Schema {
        let mut schema = Schema::default();
        let Some(map) = value.as_object() else {
            self.wrong(path, "a schema is an object");
            return schema;
        };
        for (key, value) in map {
            let inside = format!("{path}.{key}");
            self.structure(&mut schema, key, value, &inside, structural);
        }
        if schema.list == ListType::Map(Vec::new()) {
            self.wrong(path, "x-kubernetes-list-map-keys is required for lists of type map");
        }
        let typed = !schema.kind.is_empty() || schema.int_or_string || schema.preserve;
        if structural && !typed {
            self.causes.push(Cause::required(
                format!("{path}.type"),
                "must not be empty for specified object fields",
            ));
        }
        if schema.kind == "array" && structural && schema.items.is_none() {
            self.causes.push(Cause::required(format!("{path}.items"), "must be specified"));
        }
        schema
    }

    /// What says how values are built.
    fn structure(&mut self, schema: &mut Schema, key: &str, value: &Value, path: &str, structural: bool) {
        let text = || value.as_str().unwrap_or_default().to_owned();
        let flag = value.as_bool().unwrap_or(false);
        match key {
            "type" => schema.kind = text(),
            "description" | "title" | "example" | "externalDocs" => {}
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let inside = format!("{path}[{name}]");
                    schema.properties.insert(name.clone(), self.schema(value, &inside, structural));
                }
            }
            "additionalProperties" if value.is_boolean() => schema.preserve |= flag,
            "additionalProperties" => {
                schema.additional = Some(Box::new(self.schema(value, path, structural)));
            }
            "items" => schema.items = Some(Box::new(self.schema(value, path, structural))),
            "required" => schema.required = texts(value),
            "nullable" => schema.nullable = flag,
            "default" => schema.default = Some(value.clone()),
            "enum" => schema.choices = value.as_array().cloned().unwrap_or_default(),
            "x-kubernetes-preserve-unknown-fields" => schema.preserve = flag,
            "x-kubernetes-int-or-string" => schema.int_or_string = flag,
            "x-kubernetes-embedded-resource" => schema.embedded = flag,
            "x-kubernetes-list-type" | "x-kubernetes-list-map-keys" => self.list(schema, key, value, path),
            "x-kubernetes-map-type" => schema.atomic_map = text() == "atomic",
            "x-kubernetes-validations" => {
                for (index, rule) in value.as_array().into_iter().flatten().enumerate() {
                    match Rule::compile(rule) {
                        Ok(rule) => schema.rules.push(rule),
                        Err(why) => self.wrong(&format!("{path}[{index}].rule"), &why),
                    }
                }
            }
            "allOf" => schema.all_of = self.schemas(value, path),
            "anyOf" => schema.any_of = self.schemas(value, path),
            "oneOf" => schema.one_of = self.schemas(value, path),
            "not" => schema.not = Some(Box::new(self.schema(value, path, false))),
            _ => self.limit(schema, key, value, path),
        }
    }

    fn schemas(&mut self, value: &Value, path: &str) -> Vec<Schema> {
        value.as_array().into_iter().flatten().map(|value| self.schema(value, path, false)).collect()
    }

    fn list(&mut self, schema: &mut Schema, key: &str, value: &Value, path: &str) {
        if key == "x-kubernetes-list-map-keys" {
            schema.list = ListType::Map(texts(value));
            return;
        }
        match value.as_str().unwrap_or_default() {
            "atomic" => {}
            "set" => schema.list = ListType::Set,
            "map" if matches!(schema.list, ListType::Map(_)) => {}
            "map" => schema.list = ListType::Map(Vec::new()),
            other => self.wrong(path, &format!("Unsupported value: {other:?}")),
        }
    }

    /// What bounds values.
    fn limit(&mut self, schema: &mut Schema, key: &str, value: &Value, path: &str) {
        let limits = &mut schema.limits;
        let (count, number, flag) = (value.as_u64(), value.as_f64(), value.as_bool().unwrap_or(false));
        match key {
            "minLength" => limits.min_length = count,
            "maxLength" => limits.max_length = count,
            "minItems" => limits.min_items = count,
            "maxItems" => limits.max_items = count,
            "minProperties" => limits.min_properties = count,
            "maxProperties" => limits.max_properties = count,
            "minimum" => limits.minimum = number,
            "maximum" => limits.maximum = number,
            "exclusiveMinimum" => limits.exclusive_minimum = flag,
            "exclusiveMaximum" => limits.exclusive_maximum = flag,
            "multipleOf" => limits.multiple_of = number,
            "pattern" => match Regex::new(value.as_str().unwrap_or_default()) {
                Ok(pattern) => schema.pattern = Some(pattern),
                Err(error) => {
                    self.wrong(path, &format!("must be a valid regular expression, but isn't: {error}"));
                }
            },
            // Of formats that are not known a real server takes no notice, and this one none of some that it knows.
            "format" => {
                value.as_str().unwrap_or_default().clone_into(&mut schema.format);
                let known = FORMATS.contains(&schema.format.as_str()) || schema.format.starts_with("uint");
                if !known {
                    self.wrong(path, &format!("the API double does not know the format {:?}", schema.format));
                }
            }
            _ => self.wrong(path, "the API double does not know this keyword of schemas"),
        }
    }

    fn wrong(&mut self, path: &str, why: &str) {
        self.causes.push(Cause::invalid(path, why));
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What objects have that no schema has to name.
const ALWAYS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// The schema of a field, if it is known.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// Removes the fields that are not known, and nulls that are none; where they were is added to `found`.
    pub(super) fn prune(&self, path: &str, value: &mut Value, found: &mut Vec<String>) {
        if let Some(map) = value.as_object_mut() {
            self.prune_fields(path, map, found);
        } else if let (Some(list), Some(items)) = (value.as_array_mut(), &self.items) {
            for (index, item) in list.iter_mut().enumerate() {
                items.prune(&format!("{path}[{index}]"), item, found);
            }
        }
    }

    fn prune_fields(&self, path: &str, map: &mut Map<String, Value>, found: &mut Vec<String>) {
        let keep = |name: &str| self.preserve || self.embedded && ALWAYS.contains(&name);
        map.retain(|name, value| {
            if let Some(field) = self.field(name) {
                return !value.is_null() || field.nullable;
            }
            if !keep(name) {
                found.push(join(path, name));
            }
            keep(name)
        });
        for (name, value) in map.iter_mut() {
            if let Some(field) = self.field(name) {
                field.prune(&join(path, name), value, found);
            }
        }
    }

    /// Puts in what the schema has defaults for.
    pub(super) fn complete(&self, value: &mut Value) {
        if let Some(map) = value.as_object_mut() {
            for (name, field) in &self.properties {
                if let (false, Some(default)) = (map.contains_key(name), &field.default) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(field) = self.field(name) {
                    field.complete(value);
                }
            }
        } else if let (Some(list), Some(items)) = (value.as_array_mut(), &self.items) {
            for item in list {
                items.complete(item);
            }
        }
    }
}

/// A path and a field in it.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The fields that identify an item of a list, as they are in it.
pub(super) fn keys_of<'a>(keys: &[String], item: &'a Value) -> Vec<Option<&'a Value>> {
    keys.iter().map(|key| item.get(key)).collect()
}

/// Makes a value an object's `metadata` that has only what metadata has.
pub(super) fn metadata(object: &mut Value) -> Result<(), String> {
    let meta = Value::Object(object::meta_mut(object).clone());
    let known: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
        serde_json::from_value(meta).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(known).map_err(|error| error.to_string())?;
    object::map_mut(object).insert("metadata".to_owned(), known);
    Ok(())
}
