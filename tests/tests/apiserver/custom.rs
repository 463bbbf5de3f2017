//! Custom resources: definitions with schemas and rules.

use anyhow::Result;
use e2e::apiserver::fixture::ApiServer;
use e2e::net::Net;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::refusal;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  names: {kind: Widget, plural: widgets, shortNames: [wd]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [size]
            x-kubernetes-validations:
            - {rule: "!has(self.max) || self.size <= self.max", message: "size is more than max"}
            properties:
              size: {type: integer, minimum: 1}
              max: {type: integer}
              color: {type: string, enum: [red, green], default: red}
              cidrs:
                type: array
                maxItems: 2
                items:
                  type: string
                  maxLength: 43
                  x-kubernetes-validations: [{rule: "isCIDR(self)", message: "is no block of addresses"}]
              name: {type: string, x-kubernetes-validations: [{rule: "self == oldSelf", message: "the name is for good"}]}
          status:
            type: object
            properties:
              ready: {type: boolean}
  - name: v1alpha1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;

fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.org", version, "Widget"), "widgets")
}

fn widgets(client: kube::Client, version: &str) -> Api<DynamicObject> {
    Api::default_namespaced_with(client, &resource(version))
}

fn widget(name: &str, spec: &Value) -> DynamicObject {
    DynamicObject::new(name, &resource("v1")).data(json!({"spec": spec}))
}

#[test]
fn custom_resources_are_served_checked_and_gone_with_their_definition() -> Result<()> {
    let net = Net::try_new()?;
    let mut server = ApiServer::start(&net.host("api")?)?;
    server.apply(DEFINITION)?;
    let api = widgets(server.client("admin")?, "v1");
    let post = PostParams::default();
    let made =
        server.block_on(api.create(&post, &widget("a", &json!({"size": 1, "unknown": 1, "name": "x"}))))?;
    assert_eq!(made.data["spec"], json!({"size": 1, "color": "red", "name": "x"}), "pruned and completed");

    let patched =
        |patch: Value| server.block_on(api.patch("a", &PatchParams::default(), &Patch::Merge(patch)));
    for (spec, wanted) in [
        (
            json!({"size": 0}),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (json!({"size": "1"}), "spec.size in body must be of type integer"),
        (json!({"size": null}), "spec.size: Required value"),
        (
            json!({"color": "blue"}),
            "spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (json!({"max": 0}), "spec: Invalid value: \"object\": size is more than max"),
        (
            json!({"cidrs": ["10.0.0.0/8", "x"]}),
            "spec.cidrs[1]: Invalid value: \"string\": is no block of addresses",
        ),
        (json!({"cidrs": ["::/0", "::/1", "::/2"]}), "spec.cidrs: Too many: 3: must have at most 2 items"),
        (json!({"name": "y"}), "spec.name: Invalid value: \"string\": the name is for good"),
    ] {
        let (code, message) = refusal(patched(json!({"spec": spec})));
        assert_eq!(code, 422, "{message}");
        assert!(
            message.starts_with("Widget.example.org \"a\" is invalid: ") && message.contains(wanted),
            "{message}"
        );
    }
    let request =
        http::Request::post("/apis/example.org/v1/namespaces/default/widgets?fieldValidation=Strict");
    let body = serde_json::to_vec(&widget("b", &json!({"size": 1, "sise": 1})))?;
    let request = request.header("content-type", "application/json").body(body)?;
    let (code, message) = refusal(server.block_on(server.client("admin")?.request::<Value>(request)));
    assert_eq!(code, 400);
    assert!(message.contains("strict decoding error: unknown field \"spec.sise\""), "{message}");

    let ready = json!({"spec": {"size": 9}, "status": {"ready": true}});
    let stored = server.block_on(api.patch_status("a", &PatchParams::default(), &Patch::Merge(ready)))?;
    assert_eq!((&stored.data["status"]["ready"], &stored.data["spec"]["size"]), (&json!(true), &json!(1)));
    assert_eq!(stored.metadata.generation, Some(1));
    let alpha = widgets(server.client("admin")?, "v1alpha1");
    let other = server.block_on(alpha.get("a"))?;
    assert_eq!(other.types.map(|types| types.api_version).as_deref(), Some("example.org/v1alpha1"));

    server.kill()?;
    server.launch()?;
    assert_eq!(server.list("example.org/v1", "Widget", "")?.len(), 1, "definitions survive");
    server.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "widgets.example.org")?;
    let gone = widgets(server.client("admin")?, "v1");
    assert_eq!(refusal(server.block_on(gone.get("a"))).0, 404);
    server.apply(DEFINITION)?;
    assert!(server.list("example.org/v1", "Widget", "")?.is_empty(), "the objects went with the definition");
    Ok(())
}

#[test]
fn definitions_whose_rules_cannot_be_evaluated_are_refused_with_the_reason() -> Result<()> {
    let net = Net::try_new()?;
    let server = ApiServer::start(&net.host("api")?)?;
    for (from, to, wanted) in [
        ("isCIDR(self)", "isCIDR(self", "compilation failed"),
        ("isCIDR(self)", "quantity(self) == 1", "undeclared reference to 'quantity'"),
        ("self.size <= self.max", "self.sise <= self.max", "undefined field 'sise'"),
        ("type: integer, minimum: 1", "minimum: 1", "must not be empty for specified object fields"),
        ("widgets.example.org", "gadgets.example.org", "must be spec.names.plural"),
    ] {
        let message = format!("{:#}", server.apply(&DEFINITION.replacen(from, to, 1)).unwrap_err());
        assert!(message.contains(wanted), "{to}: {message}");
    }
    Ok(())
}
