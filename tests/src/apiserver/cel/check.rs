//! What a rule may read: the fields of its schema. A real server's compiler knows types; this one finds misspelt fields.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr};

use super::{Rule, escaped};
use crate::apiserver::failure::Cause;
use crate::apiserver::schema::{ListType, Schema};

/// What a name in a rule stands for: a schema, or something of which nothing is known.
type Scope<'a> = Vec<(&'a str, Option<&'a Schema>)>;

/// Collects what is wrong with the rules of a schema; `correlated` is whether the old value is known there.
pub(super) fn check(schema: &Schema, path: &str, correlated: bool, causes: &mut Vec<Cause>) {
    for (index, rule) in schema.rules.iter().enumerate() {
        let field = format!("{path}.x-kubernetes-validations[{index}].rule");
        if rule.transition && !correlated {
            let why = format!(
                "Invalid value: {:?}: oldSelf cannot be used on the uncorrelatable portion of the schema",
                rule.text
            );
            causes.push(Cause::invalid(&field, why));
        }
        if let Err(why) = read(rule, schema) {
            causes.push(Cause::invalid(
                &field,
                format!("Invalid value: {:?}: compilation failed: {why}", rule.text),
            ));
        }
    }
    for (name, field) in &schema.properties {
        check(field, &format!("{path}.properties[{name}]"), correlated, causes);
    }
    if let Some(field) = &schema.additional {
        check(field, &format!("{path}.additionalProperties"), correlated, causes);
    }
    if let Some(items) = &schema.items {
        let correlated = correlated && matches!(schema.list, ListType::Map(_));
        check(items, &format!("{path}.items"), correlated, causes);
    }
}

fn read(rule: &Rule, schema: &Schema) -> Result<(), String> {
    let mut scope: Scope<'_> = vec![("self", Some(schema)), ("oldSelf", Some(schema)), ("optional", None)];
    for program in std::iter::once(&rule.program).chain(&rule.explain) {
        schema_of(program.expression(), &mut scope)?;
    }
    Ok(())
}

/// The schema of what an expression gives, if it is a part of the object.
fn schema_of<'a>(expression: &'a IdedExpr, scope: &mut Scope<'a>) -> Result<Option<&'a Schema>, String> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(None),
        Expr::Ident(name) => {
            let found = scope.iter().rev().find(|(known, _)| known == name);
            // The language has types for names too.
            let types =
                ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
            match found {
                Some((_, schema)) => Ok(*schema),
                None if types.contains(&name.as_str()) || name.starts_with('@') => Ok(None),
                None => Err(format!("undeclared reference to '{name}'")),
            }
        }
        Expr::Select(select) => match schema_of(&select.operand, scope)? {
            Some(schema) => field_of(schema, &select.field),
            None => Ok(None),
        },
        Expr::Call(call) => called(call, scope),
        Expr::List(list) => {
            list.elements.iter().try_for_each(|element| schema_of(element, scope).map(|_| ()))?;
            Ok(None)
        }
        Expr::Map(map) => entries(&map.entries, scope),
        Expr::Struct(made) => entries(&made.entries, scope),
        Expr::Comprehension(inner) => {
            let range = schema_of(&inner.iter_range, scope)?;
            let item = range.and_then(|range| range.items.as_deref());
            let depth = scope.len();
            schema_of(&inner.accu_init, scope)?;
            scope.push((&inner.iter_var, item));
            scope.extend(inner.iter_var2.as_deref().map(|name| (name, None)));
            scope.push((&inner.accu_var, None));
            for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
                schema_of(part, scope)?;
            }
            scope.truncate(depth);
            Ok(None)
        }
    }
}

fn called<'a>(call: &'a CallExpr, scope: &mut Scope<'a>) -> Result<Option<&'a Schema>, String> {
    if let Some(target) = &call.target {
        schema_of(target, scope)?;
    }
    let mut first = None;
    for (index, argument) in call.args.iter().enumerate() {
        let found = schema_of(argument, scope)?;
        if index == 0 {
            first = found;
        }
    }
    let indexed = call.func_name == "_[_]";
    Ok(first.filter(|_| indexed).and_then(|of| of.items.as_deref().or(of.additional.as_deref())))
}

fn entries<'a>(entries: &'a [IdedEntryExpr], scope: &mut Scope<'a>) -> Result<Option<&'a Schema>, String> {
    for entry in entries {
        match &entry.expr {
            EntryExpr::MapEntry(entry) => {
                schema_of(&entry.key, scope)?;
                schema_of(&entry.value, scope)?;
            }
            EntryExpr::StructField(field) => {
                schema_of(&field.value, scope)?;
            }
        }
    }
    Ok(None)
}

fn field_of<'a>(schema: &'a Schema, name: &str) -> Result<Option<&'a Schema>, String> {
    let found = schema.properties.iter().find(|(known, _)| escaped(schema, known) == name);
    if schema.embedded && ["metadata", "apiVersion", "kind"].contains(&name) {
        return Ok(None);
    }
    match found {
        Some((known, field))
            if ["date-time", "date", "duration", "byte"].contains(&field.format.as_str()) =>
        {
            Err(format!("the API double does not know how rules see the format of '{known}'"))
        }
        Some((_, field)) => Ok(Some(field)),
        None if schema.additional.is_some() => Ok(schema.additional.as_deref()),
        None if schema.preserve => Ok(None),
        None => Err(format!("undefined field '{name}'")),
    }
}
