//! An API server on a simulated machine: the double, or a real one where `KUBEBUILDER_ASSETS` names its programs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::object;
use crate::binaries::Binary;
use crate::daemon::Daemon;
use crate::host::Host;
use crate::json;
use crate::process::Process;
use crate::wait::wait_ok;

mod client;
mod real;

use real::Real;

/// The port it serves.
const PORT: u16 = 6443;
/// How long it may take to serve.
const READY: Duration = Duration::from_secs(30);

/// How long an event may take.
const TOLD: Duration = Duration::from_mins(1);

/// An API server.
pub struct ApiServer {
    host: Host,
    folder: PathBuf,
    options: Vec<String>,
    back: Back,
    runtime: Runtime,
    admin: Option<kube::Client>,
    known: Mutex<BTreeMap<(String, String), (ApiResource, ApiCapabilities)>>,
}

/// What answers.
#[derive(Debug)]
enum Back {
    Double(Daemon),
    Real(Real),
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer")
            .field("folder", &self.folder)
            .field("back", &self.back)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Starts one.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_with(host, &[], &[])
    }

    /// Starts one that knows these users besides `admin`; the double with further options of its command line.
    pub fn start_with(host: &Host, users: &[&str], options: &[&str]) -> Result<Self> {
        let folder = host.folder().join("apiserver");
        std::fs::create_dir_all(&folder)?;
        let names: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let users = users.iter().flat_map(|user| ["--user", user]);
        let options = users.chain(options.iter().copied()).map(str::to_owned).collect();
        let back = match Real::assets() {
            Some(assets) => Back::Real(Real::start(host, &folder, assets, &names)?),
            None => Back::Double(Daemon::new("apiserver")),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut server =
            Self { host: host.clone(), folder, options, back, runtime, admin: None, known: Mutex::default() };
        server.launch()?;
        Ok(server)
    }

    /// Starts the process again, with the objects that it had.
    pub fn launch(&mut self) -> Result<()> {
        let process = match &mut self.back {
            Back::Double(_) => Some(self.spawn()?),
            Back::Real(real) => {
                real.launch(&self.host, &self.folder)?;
                None
            }
        };
        let socket = self.control_socket();
        if let (Back::Double(daemon), Some(process)) = (&mut self.back, process) {
            daemon.serves(process, &socket)?;
        }
        self.admin = Some(self.client("admin")?);
        let ready = wait_ok("a ready API server", READY, || self.text("/readyz")).map(|_| ());
        ready.with_context(|| self.output())
    }

    /// Starts the double's process.
    fn spawn(&self) -> Result<Process> {
        Binary::ApiServer.path()?;
        let (state, folder) = (self.folder.join("objects"), self.folder.display().to_string());
        let (v4, v6) = (format!("{}:{PORT}", self.host.v4()), format!("[{}]:{PORT}", self.host.v6()));
        let (state, control) = (state.display().to_string(), self.control_socket().display().to_string());
        let mut words =
            vec![Binary::ApiServer.name(), "--state", &state, "--folder", &folder, "--control", &control];
        words.extend(["--listen", &v4, "--listen", &v6]);
        words.extend(self.options.iter().map(String::as_str));
        self.host.spawn("apiserver", &words)
    }

    /// What it has, as a backup. The double alone has one.
    pub fn backup(&self) -> Result<Vec<u8>> {
        let path = self.folder.join("objects");
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// Makes it have what a backup has: it ends, and starts again with that.
    pub fn restore(&mut self, backup: &[u8]) -> Result<()> {
        self.kill()?;
        let path = self.folder.join("objects");
        std::fs::write(&path, backup).with_context(|| path.display().to_string())?;
        self.launch()
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&mut self) -> Result<()> {
        match &mut self.back {
            Back::Double(daemon) => daemon.kill(),
            Back::Real(real) => real.kill(),
        }
    }

    /// Stops it as a service manager would.
    pub fn stop(&mut self) -> Result<()> {
        match &mut self.back {
            Back::Double(daemon) => daemon.stop(),
            Back::Real(real) => real.stop(),
        }
    }

    /// What answers: `apiserver` or `double`. Results of tests name it.
    #[must_use]
    pub fn back_end(&self) -> &'static str {
        match self.back {
            Back::Double(_) => "double",
            Back::Real(_) => "apiserver",
        }
    }

    /// Whether it is the double, which alone can be controlled; says so if it is not.
    #[must_use]
    pub fn is_double(&self) -> bool {
        println!("back end: {}", self.back_end());
        matches!(self.back, Back::Double(_))
    }

    /// The machine it is on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What its process wrote, for messages.
    #[must_use]
    pub fn output(&self) -> String {
        match &self.back {
            Back::Double(daemon) => daemon.output(),
            Back::Real(real) => real.output(),
        }
    }

    /// The kubeconfig of `admin`, or of a user that it was started with.
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// A client of a user, whose connections are made on the server's machine. Its futures run on [`Self::block_on`].
    pub fn client(&self, user: &str) -> Result<kube::Client> {
        self.runtime.block_on(client::connect(&self.host, &self.kubeconfig(user)))
    }

    /// Runs a future to its end.
    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Runs a future until this is dropped.
    pub fn run_beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }

    /// Makes the objects of these YAML documents what they say, their status too.
    pub fn apply(&self, yaml: &str) -> Result<Vec<Value>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
        documents
            .into_iter()
            .filter(|document| !document.is_null())
            .map(|document| self.put(document))
            .collect()
    }

    fn put(&self, mut object: Value) -> Result<Value> {
        let path = self.path_of(&object)?;
        let (collection, _) = path.rsplit_once('/').context("no collection")?;
        let what = format!("{} {}", object::text(&object, "/kind"), object::name(&object));
        let status = object.get("status").cloned();
        let stored = match self.send("POST", collection, &object) {
            Err(error) if is(&error, 409) => {
                let old = self.read(&path)?;
                object::copy_meta(&old, &mut object, "resourceVersion");
                self.send("PUT", &path, &object)
            }
            done => done,
        };
        let mut stored = stored.with_context(|| format!("cannot apply the {what}"))?;
        if object::text(&object, "/kind") == "CustomResourceDefinition" {
            self.wait_established(&path)?;
            return Ok(stored);
        }
        let Some(status) = status.filter(|status| stored.get("status") != Some(status)) else {
            return Ok(stored);
        };
        object::map_mut(&mut stored).insert("status".to_owned(), status);
        self.send("PUT", &format!("{path}/status"), &stored)
            .with_context(|| format!("cannot set the status of the {what}"))
    }

    /// Waits until a definition is in force, which takes a real server a moment.
    fn wait_established(&self, path: &str) -> Result<()> {
        wait_ok("the definition to be in force", READY, || {
            let crd = self.read(path)?;
            let conditions = crd.pointer("/status/conditions").and_then(Value::as_array);
            let is = |condition: &Value| {
                json::text(condition, "type") == "Established" && json::text(condition, "status") == "True"
            };
            ensure!(conditions.is_some_and(|all| all.iter().any(is)), "{crd:#}");
            Ok(())
        })
    }

    /// An object; an error if it is not there.
    pub fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        self.read(&self.path(api_version, kind, namespace, name)?)
    }

    /// The objects of a kind, of all namespaces if none is named.
    pub fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Result<Vec<Value>> {
        let list = self.read(&self.path(api_version, kind, namespace, "")?)?;
        Ok(json::list(&list, "items").to_vec())
    }

    /// Waits for an event with this reason about an object of that name; its note.
    pub fn wait_event(&self, reason: &str, name: &str) -> Result<String> {
        wait_ok(&format!("{reason} of {name}"), TOLD, || {
            let events = self.list("events.k8s.io/v1", "Event", "")?;
            let is = |event: &&Value| {
                let regarding = json::at(event, &["regarding"]);
                json::text(event, "reason") == reason
                    && json::text(regarding, "name") == name
                    && !json::text(regarding, "uid").is_empty()
            };
            let found = events.iter().find(is).with_context(|| format!("{events:#?}"))?;
            Ok(json::text(found, "note").to_owned())
        })
    }

    /// Deletes an object, at once if it is a pod; no error if it is not there.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let path = self.path(api_version, kind, namespace, name)?;
        let options = serde_json::json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        match self.send("DELETE", &path, &options) {
            Err(error) if !is(&error, 404) => Err(error),
            _ => Ok(()),
        }
    }

    /// The token that a pod is given of its service account, for an audience; both have to be there.
    pub fn bound_token(&self, namespace: &str, account: &str, pod: &str, audience: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let bound =
            (!pod.is_empty()).then(|| serde_json::json!({"apiVersion": "v1", "kind": "Pod", "name": pod}));
        let spec = serde_json::json!({
            "audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound,
        });
        let request = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
        });
        Ok(object::text(&self.send("POST", &path, &request)?, "/status/token").to_owned())
    }

    /// Where an object is.
    fn path_of(&self, object: &Value) -> Result<String> {
        let (api_version, kind) = (object::text(object, "/apiVersion"), object::text(object, "/kind"));
        ensure!(!object::name(object).is_empty(), "an object without a name: {object}");
        let namespace = Some(object::namespace(object)).filter(|namespace| !namespace.is_empty());
        self.path(api_version, kind, namespace.unwrap_or("default"), object::name(object))
    }

    fn path(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<String> {
        let (resource, capabilities) = self.resource(api_version, kind)?;
        let namespace =
            (capabilities.scope == Scope::Namespaced && !namespace.is_empty()).then_some(namespace);
        let collection = resource_path(&resource, namespace);
        Ok(if name.is_empty() { collection } else { format!("{collection}/{name}") })
    }

    fn resource(&self, api_version: &str, kind: &str) -> Result<(ApiResource, ApiCapabilities)> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let found = self
            .block_on(kube::discovery::pinned_kind(self.admin()?, &gvk))
            .with_context(|| format!("the API server does not serve {kind} of {api_version}"))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
        Ok(found)
    }

    fn admin(&self) -> Result<&kube::Client> {
        self.admin.as_ref().context("the API server was not started")
    }

    fn read(&self, path: &str) -> Result<Value> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.block_on(self.admin()?.request(request))?)
    }

    fn text(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.block_on(self.admin()?.request_text(request))?)
    }

    fn send(&self, method: &str, path: &str, object: &Value) -> Result<Value> {
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        Ok(self.block_on(self.admin()?.request(request.body(serde_json::to_vec(object)?)?))?)
    }

    /// The socket by which the double is controlled.
    fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Tells the double to do something, see `/double/…` in `control.rs`.
    pub fn control(&self, what: &str) -> Result<Value> {
        let mut stream =
            UnixStream::connect(self.control_socket()).context("only the double can be controlled")?;
        write!(stream, "POST /double/{what} HTTP/1.1\r\nHost: double\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let body: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("/double/{what}: {}", json::text(&body, "message"));
        }
        Ok(body)
    }

    /// How many requests there were of a user, with one of these verbs, for a resource; empty means any.
    pub fn count(&self, user: &str, verbs: &[&str], resource: &str) -> Result<u64> {
        let counts = self.control("counts")?;
        let counted = json::list(&counts, "").iter().filter(|count| {
            (user.is_empty() || json::text(count, "user") == user)
                && (verbs.is_empty() || verbs.contains(&json::text(count, "verb")))
                && match resource {
                    // They are renewed as long as somebody runs.
                    "" => json::text(count, "resource") != "leases",
                    _ => json::text(count, "resource") == resource,
                }
        });
        Ok(counted.map(|count| json::number(count, "count")).sum())
    }
}

/// The verbs that change something.
pub const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

fn resource_path(resource: &ApiResource, namespace: Option<&str>) -> String {
    let root =
        if resource.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", resource.group) };
    let within = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    format!("{root}{}/{within}{}", resource.version, resource.plural)
}

/// Whether the server refused with this code.
#[must_use]
pub fn is(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == code)
}
