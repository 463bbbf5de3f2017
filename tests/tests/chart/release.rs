//! A release from its begin to its end, in an API server: what is there afterwards, and that the gateway has all that it
//! needs. With the double, Helm notes the release in its own memory: it writes its Secrets in a form that only a real
//! server reads.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::apiserver::fixture::{ApiServer, is};
use e2e::command::Answer;
use e2e::host::Host;
use e2e::json;
use e2e::net::Net;
use e2e::process::Process;
use e2e::wait::wait_ok;
use serde_json::{Value, json};

use super::rendered::{Rendered, chart, name};

const PATIENCE: Duration = Duration::from_mins(1);
/// Whom the pod is to the API server.
const ACCOUNT: &str = "system:serviceaccount:mesh:gw-outrigger";
/// Kinds that stay when a release goes.
const KEPT: [&str; 1] = ["CustomResourceDefinition"];

/// Helm, at work.
struct Helm {
    process: Process,
    answers: usize,
}

impl Helm {
    fn start(server: &ApiServer) -> Result<Self> {
        let python = std::env::var("OUTRIGGER_CHART_PYTHON").context("`cargo xtask ci chart` runs this")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/helm.py");
        let (script, chart) = (script.display().to_string(), chart().display().to_string());
        let kubeconfig = server.kubeconfig("admin").display().to_string();
        let storage = if server.is_double() { "memory" } else { "secret" };
        let words = [&python, &script, "release", &chart, &kubeconfig, storage];
        Ok(Self { process: server.host().spawn("helm", &words)?, answers: 0 })
    }

    fn does(&mut self, what: &str, values: &Value) -> Result<Value> {
        self.process.say(&format!("{}\n", json!({"do": what, "values": values})))?;
        self.answers += 1;
        wait_ok(what, PATIENCE, || {
            ensure!(self.process.stdout().lines().count() == self.answers, "{}", self.process.output());
            Ok(())
        })?;
        let answer: Value = self.process.report()?;
        match answer["error"].as_str() {
            Some(error) => bail!("{what}: {error}"),
            None => Ok(answer["done"].clone()),
        }
    }
}

fn in_force(server: &ApiServer, object: &Value) -> Result<Value> {
    let namespace = json::text(&object["metadata"], "namespace");
    server.get(json::text(object, "apiVersion"), json::text(object, "kind"), namespace, name(object))
}

/// Whether each object of the release is there, or only those that stay.
fn check_objects(server: &ApiServer, objects: &[Value], is_installed: bool) -> Result<()> {
    for object in objects {
        let kind = json::text(object, "kind");
        match in_force(server, object) {
            Ok(_) => ensure!(is_installed || KEPT.contains(&kind), "{kind} {} is left", name(object)),
            Err(error) if is(&error, 404) => {
                ensure!(!is_installed && !KEPT.contains(&kind), "no {kind} {}", name(object));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Starts the gateway as the pod would, with the rights of its service account, waits until it answers the probes, and gives
/// it a command.
fn check_gateway(server: &ApiServer, host: &Host, command: &[&str]) -> Result<Answer> {
    let map = server.get("v1", "ConfigMap", "mesh", "gw-outrigger")?;
    let folder = host.folder().join("pod");
    std::fs::create_dir_all(&folder)?;
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("gateway.yaml"), json::text(&map["data"], "gateway.yaml"))?;
    let deployment = server.get("apps/v1", "Deployment", "mesh", "gw-outrigger")?;
    let pod = &deployment["spec"]["template"]["spec"];
    let arguments = json::texts(&pod["containers"][0], "args");
    let (config, state, socket) = (path("gateway.yaml"), path("state"), path("admin.sock"));
    let kubeconfig = server.kubeconfig(ACCOUNT).display().to_string();
    let mut words = vec!["outrigger-gateway"];
    // Its files are in folders of the test.
    words.extend(arguments.iter().map(|word| if word.starts_with('/') { &config } else { word }.as_str()));
    words.extend(["--kubeconfig", &kubeconfig, "--state-dir", &state, "--admin-socket", &socket]);
    let mut gateway = host.spawn("gateway", &words)?;
    let ready = wait_ok("a ready gateway", PATIENCE, || {
        host.run(&["traffic", "get", "http://127.0.0.1:9464/readyz"])?.ok().map(|_| ())
    });
    ready.with_context(|| gateway.output())?;
    // One that waits for the lease of the one before is ready too, and takes no commands.
    let ask = |command: &[&str]| {
        host.run(&[&["outrigger-gateway"], command, &["--socket", &socket]].concat())?.ok()
    };
    wait_ok("the lease", PATIENCE, || ask(&["status"]))?;
    let answer = ask(command)?;
    gateway.stop()?;
    Ok(answer)
}

#[test]
#[ignore = "`cargo xtask ci chart` brings Helm"]
fn a_release_is_installed_upgraded_and_removed_and_the_objects_stay() -> Result<()> {
    let answer = Rendered::read().answer;
    let objects = json::list(&answer["base"], "objects");
    let net = Net::try_new()?;
    let host = net.host("api")?;
    let server = ApiServer::start_with(&host, &[ACCOUNT], &[])?;
    let mut helm = Helm::start(&server)?;
    let mut values = json!({
        "image": {"repository": "registry.example/outrigger-gateway"}, "config": {"workloadPools": ["10.244.240.0/20"]},
    });

    let done = helm.does("install", &values)?;
    assert_eq!((&done["status"], &done["revision"]), (&json!("deployed"), &json!(1)), "{done}");
    check_objects(&server, objects, true)?;
    check_gateway(&server, &host, &["status"])?;
    let group = "{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup,
                  metadata: {name: db, namespace: default}, spec: {template: {labels: {app: db}}}}";
    server.apply(group)?;

    let checksum = || -> Result<Value> {
        let deployment = server.get("apps/v1", "Deployment", "mesh", "gw-outrigger")?;
        Ok(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone())
    };
    let before = checksum()?;
    values["config"]["advertise"] = json!(["192.0.2.1:7443"]);
    assert_eq!(helm.does("upgrade", &values)?["revision"], 2);
    assert_ne!(checksum()?, before, "the gateway would not be started again");
    check_gateway(&server, &host, &["token", "create", "--group", "default/db"])?;
    let tokens = server.list("outrigger.dev/v1alpha1", "JoinToken", "default")?;
    assert_eq!(tokens.len(), 1, "{tokens:#?}");

    values["replicas"] = json!(8);
    let refused = helm.does("upgrade", &values).unwrap_err().to_string();
    assert!(refused.contains("at '/replicas'"), "{refused}");
    let kept = server.get("apps/v1", "Deployment", "mesh", "gw-outrigger")?;
    assert_eq!(kept["spec"]["replicas"], 2);

    values["replicas"] = json!(1);
    helm.does("uninstall", &values)?;
    check_objects(&server, objects, false)?;
    server.get("outrigger.dev/v1alpha1", "ExternalWorkloadGroup", "default", "db")?;
    // The gateway made it, not Helm.
    let roots = server.get("v1", "Secret", "mesh", "outrigger-roots")?;

    // The same name takes over what has stayed.
    helm.does("install", &values)?;
    check_objects(&server, objects, true)?;
    server.get("outrigger.dev/v1alpha1", "ExternalWorkloadGroup", "default", "db")?;
    check_gateway(&server, &host, &["status"])?;
    assert_eq!(server.get("v1", "Secret", "mesh", "outrigger-roots")?["data"], roots["data"]);
    Ok(())
}
