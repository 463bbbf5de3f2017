#![expect(clippy::needless_pass_by_value, reason = "a call with a literal reads better")]

use serde_json::json;

use super::*;

/// What is said about a value, and a value before it.
fn said(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
    let root = json!({"type": "object", "properties": {"spec": schema}});
    let schema = Schema::root(&root, "schema").unwrap();
    let (value, old) = (json!({"spec": value}), old.map(|old| json!({"spec": old})));
    let mut causes = Vec::new();
    validate(&schema, "", &value, old.as_ref(), &mut causes);
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

fn of_text(rule: &str) -> Value {
    json!({"type": "string", "x-kubernetes-validations": [{"rule": rule, "message": "no"}]})
}

#[test]
fn the_functions_of_kubernetes_are_there() {
    for (rule, good, bad) in [
        ("isIP(self)", "10.0.0.1", "10.0.0"),
        ("isCIDR(self) && cidr(self).prefixLength() <= 24", "10.0.0.0/16", "10.0.0.0/25"),
        ("cidr('10.0.0.0/8').containsIP(self)", "10.1.2.3", "11.1.2.3"),
        ("cidr('10.0.0.0/8').containsCIDR(self)", "10.1.0.0/16", "0.0.0.0/0"),
        ("cidr(self).masked() == cidr(self)", "10.1.0.0/16", "10.1.0.1/16"),
        ("ip(self).family() == 6", "fd00::1", "10.0.0.1"),
        ("isURL(self)", "https://example.org/x", "example org"),
        ("self.find('[0-9]+') == '12'", "ab12c", "abc"),
        ("self.matches('^[a-z]+$') && self.size() < 4", "abc", "abcd"),
        ("self.lowerAscii() == self", "abc", "Abc"),
        ("self.split('.').all(part, part.size() > 0)", "a.b", "a..b"),
        ("self.startsWith('a') ? self.endsWith('b') : true", "ab", "ac"),
    ] {
        assert!(said(of_text(rule), json!(good), None).is_empty(), "{rule} and {good}");
        assert_eq!(
            said(of_text(rule), json!(bad), None),
            [r#"spec: Invalid value: "string": no"#],
            "{rule} and {bad}"
        );
    }
}

#[test]
fn rules_read_objects_lists_and_what_was() {
    let schema = json!({
        "type": "object",
        "properties": {
            "min": {"type": "integer"},
            "max": {"type": "integer"},
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "name is immutable"}]},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {
                    "type": "object",
                    "properties": {"n": {"type": "integer"}, "namespace": {"type": "string"}},
                    "x-kubernetes-validations": [{"rule": "self.__namespace__ == oldSelf.__namespace__", "fieldPath": ".namespace", "reason": "FieldValueForbidden"}],
                },
            },
        },
        "x-kubernetes-validations": [{
            "rule": "!has(self.max) || self.min <= self.max",
            "messageExpression": "'min ' + string(self.min) + ' is more than max ' + string(self.max)",
        }],
    });
    let ports = |namespace: &str| json!([{"n": 1, "namespace": namespace}]);
    assert!(said(schema.clone(), json!({"min": 3, "name": "a", "ports": ports("x")}), None).is_empty());
    let old = json!({"min": 3, "name": "a", "ports": ports("x")});
    let new = json!({"min": 3, "max": 2, "name": "b", "ports": ports("y")});
    assert_eq!(
        said(schema, new, Some(old)),
        [
            r#"spec: Invalid value: "object": min 3 is more than max 2"#,
            r#"spec.name: Invalid value: "string": name is immutable"#,
            "spec.ports[0].namespace: Forbidden: failed rule: self.__namespace__ == oldSelf.__namespace__",
        ]
    );
}

#[test]
fn rules_that_cannot_be_evaluated_refuse_the_schema() {
    for (rule, why) in [
        ("self.size( > 1", "compilation failed"),
        ("quantity(self).isGreaterThan(quantity('1'))", "undeclared reference to '"),
        ("other == 1", "undeclared reference to 'other'"),
        ("[1].exists(x, y == 1)", "undeclared reference to 'y'"),
    ] {
        let root = json!({"type": "object", "properties": {"spec": of_text(rule)}});
        let causes = Schema::root(&root, "schema").unwrap_err();
        assert!(causes.iter().any(|cause| cause.message.contains(why)), "{rule}: {causes:?}");
    }
    let misspelt = json!({
        "type": "object",
        "properties": {"list": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}},
        "x-kubernetes-validations": [{"rule": "self.list.all(item, item.nam != '')"}],
    });
    let causes = Schema::root(&misspelt, "schema").unwrap_err();
    assert!(causes[0].message.contains("undefined field 'nam'"), "{causes:?}");
    let lost = json!({
        "type": "object",
        "properties": {"list": {"type": "array", "items": of_text("self == oldSelf")}},
    });
    assert!(Schema::root(&lost, "schema").unwrap_err()[0].message.contains("uncorrelatable"));
}
