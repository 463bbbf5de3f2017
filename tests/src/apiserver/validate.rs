//! Whether a value is what a schema says, in the words of a real server.

use regex::Regex;
use serde_json::Value;

use super::failure::Cause;
use super::schema::{ListType, Schema, join, keys_of};

/// Collects what is wrong with a value.
pub(super) fn validate(schema: &Schema, path: &str, value: &Value, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !is_type(schema, value) {
        let (wanted, found) = (&schema.kind, type_of(value));
        let message =
            format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\"");
        causes.push(Cause { reason: "FieldValueTypeInvalid", field: path.to_owned(), message });
        return;
    }
    if !schema.choices.is_empty() && !schema.choices.contains(value) {
        let known: Vec<String> = schema.choices.iter().map(ToString::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", known.join(", "));
        causes.push(Cause { reason: "FieldValueNotSupported", field: path.to_owned(), message });
    }
    if let Some(text) = value.as_str() {
        text_of(schema, path, text, causes);
    } else if let Some(number) = value.as_f64() {
        number_of(schema, path, number, causes);
    } else if let Some(list) = value.as_array() {
        list_of(schema, path, list, causes);
    } else if value.is_object() {
        object_of(schema, path, value, causes);
    }
    combined(schema, path, value, causes);
}

/// Whether a value satisfies one of several schemas, and such.
fn combined(schema: &Schema, path: &str, value: &Value, causes: &mut Vec<Cause>) {
    let fits = |schema: &&Schema| {
        let mut causes = Vec::new();
        validate(schema, path, value, &mut causes);
        causes.is_empty()
    };
    for part in &schema.all_of {
        validate(part, path, value, causes);
    }
    let mut wrong =
        |what: &str| causes.push(Cause::invalid(path, format!("Invalid value: {path} in body must {what}")));
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(|part| fits(&part)) {
        wrong("validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() && schema.one_of.iter().filter(fits).count() != 1 {
        wrong("validate one and only one schema (oneOf)");
    }
    if schema.not.as_deref().is_some_and(|part| fits(&part)) {
        wrong("not validate the schema (not)");
    }
}

fn is_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.kind.as_str() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn text_of(schema: &Schema, path: &str, text: &str, causes: &mut Vec<Cause>) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema.limits.max_length.filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", field: path.to_owned(), message });
    }
    let mut wrong = |what: String| {
        causes.push(Cause::invalid(path, format!("Invalid value: {text:?}: {path} in body {what}")));
    };
    if let Some(least) = schema.limits.min_length.filter(|least| length < *least) {
        wrong(format!("should be at least {least} chars long"));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        wrong(format!("should match '{pattern}'"));
    }
    if !is_format(&schema.format, text) {
        wrong(format!("must be of type {}: {text:?}", schema.format));
    }
}

/// Whether a text has a format, where that is simple to say.
fn is_format(format: &str, text: &str) -> bool {
    let like = |pattern: &str| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => like(r"^[-+]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+$"),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => like(r"^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        _ => true,
    }
}

fn number_of(schema: &Schema, path: &str, number: f64, causes: &mut Vec<Cause>) {
    let limits = &schema.limits;
    let mut wrong = |what: String| {
        causes
            .push(Cause::invalid(path, format!("Invalid value: {number}: {path} in body should be {what}")));
    };
    if let Some(least) = limits.minimum {
        if limits.exclusive_minimum && number <= least {
            wrong(format!("greater than {least}"));
        } else if number < least {
            wrong(format!("greater than or equal to {least}"));
        }
    }
    if let Some(most) = limits.maximum {
        if limits.exclusive_maximum && number >= most {
            wrong(format!("less than {most}"));
        } else if number > most {
            wrong(format!("less than or equal to {most}"));
        }
    }
    if let Some(step) = limits.multiple_of.filter(|step| (number / step).fract() != 0.0) {
        wrong(format!("a multiple of {step}"));
    }
    let range = match schema.format.as_str() {
        "int32" => f64::from(i32::MIN)..=f64::from(i32::MAX),
        "uint8" => 0.0..=255.0,
        "uint16" => 0.0..=65535.0,
        "uint32" => 0.0..=f64::from(u32::MAX),
        "uint64" | "uint" => 0.0..=f64::MAX,
        _ => return,
    };
    if schema.format == "int32" && !range.contains(&number) {
        wrong("of type int32".to_owned());
    }
}

fn list_of(schema: &Schema, path: &str, list: &[Value], causes: &mut Vec<Cause>) {
    let count = u64::try_from(list.len()).unwrap_or(u64::MAX);
    if let Some(most) = schema.limits.max_items.filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        causes.push(Cause { reason: "FieldValueTooMany", field: path.to_owned(), message });
    }
    if let Some(least) = schema.limits.min_items.filter(|least| count < *least) {
        let message = format!("Invalid value: {count}: {path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, message));
    }
    for (index, item) in list.iter().enumerate() {
        let inside = format!("{path}[{index}]");
        let earlier = list.iter().take(index);
        let again = match &schema.list {
            ListType::Atomic => false,
            ListType::Set => earlier.into_iter().any(|other| other == item),
            ListType::Map(keys) => {
                earlier.into_iter().any(|other| keys_of(keys, other) == keys_of(keys, item))
            }
        };
        if again {
            let shown = match &schema.list {
                ListType::Map(keys) => {
                    keys.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or_default())).collect()
                }
                ListType::Atomic | ListType::Set => item.clone(),
            };
            let message = format!("Duplicate value: {shown}");
            causes.push(Cause { reason: "FieldValueDuplicate", field: inside.clone(), message });
        }
        if let Some(items) = &schema.items {
            validate(items, &inside, item, causes);
        }
    }
}

fn object_of(schema: &Schema, path: &str, value: &Value, causes: &mut Vec<Cause>) {
    for name in schema.required.iter().filter(|name| value.get(name.as_str()).is_none()) {
        causes.push(Cause::required(join(path, name), ""));
    }
    let map = value.as_object().into_iter().flatten();
    let count = u64::try_from(map.clone().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema.limits.max_properties.filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        causes.push(Cause { reason: "FieldValueTooMany", field: path.to_owned(), message });
    }
    if let Some(least) = schema.limits.min_properties.filter(|least| count < *least) {
        let message =
            format!("Invalid value: {count}: {path} in body should have at least {least} properties");
        causes.push(Cause::invalid(path, message));
    }
    for (name, value) in map {
        if let Some(field) = schema.field(name) {
            validate(field, &join(path, name), value, causes);
        }
    }
}
