//! Validation rules in CEL: compiled when a definition is stored, evaluated when an object is written.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Program};
use serde_json::Value;

use super::failure::Cause;
use super::object;
use super::schema::{ListType, Schema, join, keys_of};

mod check;
mod functions;

/// A rule of a schema.
#[derive(Debug)]
pub(super) struct Rule {
    text: String,
    program: Program,
    message: String,
    explain: Option<Program>,
    reason: &'static str,
    /// Where the message belongs, below where the rule is.
    field: String,
    /// Whether it compares with what was.
    pub(super) transition: bool,
    /// Whether it wants to see that nothing was.
    optional_old: bool,
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // It declares what no other declares.
    let _ = env.add_extension(cel::extensions::strings);
    Arc::new(env)
});

impl Rule {
    /// Reads a rule; the error says why it is none.
    pub(super) fn compile(value: &Value) -> Result<Self, String> {
        let known = ["rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf"];
        let unknown = value.as_object().and_then(|map| map.keys().find(|key| !known.contains(&key.as_str())));
        if let Some(unknown) = unknown {
            return Err(format!("the API double does not know {unknown:?} of rules"));
        }
        let text = object::text(value, "/rule").trim().to_owned();
        let program = compile(&text)?;
        let explain = match object::text(value, "/messageExpression") {
            "" => None,
            text => Some(compile(text)?),
        };
        let reason = match object::text(value, "/reason") {
            "" | "FieldValueInvalid" => "FieldValueInvalid",
            "FieldValueForbidden" => "FieldValueForbidden",
            "FieldValueRequired" => "FieldValueRequired",
            "FieldValueDuplicate" => "FieldValueDuplicate",
            other => return Err(format!("Unsupported value: {other:?}")),
        };
        let transition = program.references().has_variable("oldSelf");
        let message = object::text(value, "/message").to_owned();
        let field = object::text(value, "/fieldPath").to_owned();
        let optional_old = value.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        if optional_old {
            return Err("the API double does not know optionalOldSelf".to_owned());
        }
        Ok(Self { text, program, message, explain, reason, field, transition, optional_old })
    }

    /// Why a value breaks it; none if it does not.
    fn broken(&self, schema: &Schema, value: &Value, old: Option<&Value>) -> Option<String> {
        if self.transition && old.is_none() && !self.optional_old {
            return None;
        }
        let mut context = Context::with_env(Arc::clone(&ENV));
        functions::add(&mut context);
        context.add_variable_from_value("self", to_cel(schema, value));
        if let Some(old) = old {
            context.add_variable_from_value("oldSelf", to_cel(schema, old));
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(true)) => None,
            Ok(cel::Value::Bool(false)) => Some(self.explanation(&context)),
            Ok(other) => Some(format!("rule evaluated to {other:?}, which is no bool: {}", self.text)),
            Err(error) => Some(format!("rule evaluation error: {error} evaluating rule: {}", self.label())),
        }
    }

    fn explanation(&self, context: &Context<'_, '_>) -> String {
        let explained = self.explain.as_ref().and_then(|program| program.execute(context).ok());
        match explained {
            Some(cel::Value::String(text)) if !text.trim().is_empty() => text.to_string(),
            _ => self.label(),
        }
    }

    fn label(&self) -> String {
        if self.message.is_empty() { format!("failed rule: {}", self.text) } else { self.message.clone() }
    }

    fn cause(&self, path: &str, kind: &str, why: &str) -> Cause {
        let path = if path.is_empty() { "<nil>" } else { path };
        let field = match self.field.strip_prefix('.') {
            Some(field) if path == "<nil>" => field.to_owned(),
            _ => format!("{path}{}", self.field),
        };
        let message = match self.reason {
            "FieldValueForbidden" => format!("Forbidden: {why}"),
            "FieldValueRequired" => format!("Required value: {why}"),
            "FieldValueDuplicate" => format!("Duplicate value: \"{kind}\""),
            _ => format!("Invalid value: \"{kind}\": {why}"),
        };
        Cause { reason: self.reason, field, message }
    }
}

fn compile(text: &str) -> Result<Program, String> {
    let program =
        ENV.compile(text).map_err(|error| format!("Invalid value: {text:?}: compilation failed: {error}"))?;
    let references = program.references();
    let unknown =
        references.functions().into_iter().find(|name| !functions::is_known(name)).map(str::to_owned);
    match unknown {
        Some(name) => {
            Err(format!("Invalid value: {text:?}: compilation failed: undeclared reference to '{name}'"))
        }
        None => Ok(program),
    }
}

/// Refuses rules that read what their schemas do not have, or compare with what was where that is not known.
pub(super) fn check(schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    check::check(schema, path, true, causes);
}

/// Collects the rules that a value breaks.
pub(super) fn validate(
    schema: &Schema,
    path: &str,
    value: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    for rule in &schema.rules {
        if let Some(why) = rule.broken(schema, value, old) {
            causes.push(rule.cause(path, &schema.kind, &why));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        if let Some(field) = schema.field(name) {
            validate(field, &join(path, name), value, old.and_then(|old| old.get(name)), causes);
        }
    }
    let Some(items) = &schema.items else { return };
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let before = match &schema.list {
            ListType::Map(keys) => old
                .and_then(Value::as_array)
                .and_then(|list| list.iter().find(|before| keys_of(keys, before) == keys_of(keys, item))),
            ListType::Atomic | ListType::Set => None,
        };
        validate(items, &format!("{path}[{index}]"), item, before, causes);
    }
}

/// A value as rules see it: integers are signed, fields have names that can be written.
fn to_cel(schema: &Schema, value: &Value) -> cel::Value {
    if let Some(text) = value.as_str() {
        return text.into();
    }
    if let Some(list) = value.as_array() {
        let any = Schema { preserve: true, ..Schema::default() };
        let items = schema.items.as_deref().unwrap_or(&any);
        return cel::Value::List(Arc::new(list.iter().map(|item| to_cel(items, item)).collect()));
    }
    if let Some(map) = value.as_object() {
        let fields = map.iter().filter_map(|(name, value)| {
            if schema.embedded && name == "metadata" {
                return Some((Key::from(name.as_str()), metadata(value)));
            }
            let (key, any) = (escaped(schema, name), Schema { preserve: true, ..Schema::default() });
            let known =
                schema.field(name).or_else(|| (schema.preserve || schema.embedded).then_some(&any))?;
            Some((Key::from(key.as_str()), to_cel(known, value)))
        });
        return cel::Value::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) });
    }
    if let Some(flag) = value.as_bool() {
        return cel::Value::Bool(flag);
    }
    match (schema.kind.as_str(), value.as_i64(), value.as_f64()) {
        ("number", _, Some(number)) | (_, None, Some(number)) => cel::Value::Float(number),
        (_, Some(number), _) => cel::Value::Int(number),
        (_, None, None) => cel::Value::Null,
    }
}

/// Of an object's metadata, rules see its names.
fn metadata(value: &Value) -> cel::Value {
    let named = ["name", "generateName"].into_iter().filter_map(|key| {
        let text = value.get(key)?.as_str()?;
        Some((Key::from(key), cel::Value::from(text)))
    });
    cel::Value::Map(Map { map: Arc::new(named.collect::<HashMap<_, _>>()) })
}

/// The name of a field in a rule.
fn escaped(schema: &Schema, name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if !schema.properties.contains_key(name) {
        name.to_owned()
    } else if RESERVED.contains(&name) {
        format!("__{name}__")
    } else {
        let name = name.replace("__", "__underscores__").replace('.', "__dot__");
        name.replace('-', "__dash__").replace('/', "__slash__")
    }
}

#[cfg(test)]
mod tests;
