//! What cert-manager does, as far as a gateway can see it: a controller that answers `CertificateRequest`s in the API server
//! of a test, as it is told to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::apiserver::fixture::ApiServer;
use crate::json as values;

/// The namespace of the requests, and the issuer of the tests.
pub const NAMESPACE: &str = "mesh";
/// The issuer.
pub const ISSUER: &str = "mesh-ca";
/// How often requests are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// They are signed as they are.
    Sign,
    /// They are signed with a name more.
    AddName,
    /// Nobody approves of them.
    Deny,
    /// They are found invalid.
    Refuse,
    /// Nothing.
    Silence,
}

/// A controller that answers.
pub struct CertManager {
    mood: Arc<Mutex<Mood>>,
    ignored: Ignored,
}

/// The names of requests that were seen and not answered.
type Ignored = Arc<Mutex<BTreeSet<String>>>;

impl fmt::Debug for CertManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertManager").finish_non_exhaustive()
    }
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertManager {
    /// Defines the kind, lets `user` make requests, and answers them until the server of the test is gone.
    pub fn install(server: &ApiServer, user: &str) -> Result<Self> {
        server.apply(&definition().to_string())?;
        server.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"))?;
        grant(server, user, &["create", "get", "list", "delete"])?;
        let (mood, ignored) = (Arc::new(Mutex::new(Mood::Sign)), Ignored::default());
        let (client, authority, told) = (server.client("admin")?, Authority::try_new()?, mood.clone());
        let seen = ignored.clone();
        let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest");
        let resource = ApiResource::from_gvk_with_plural(&kind, "certificaterequests");
        let requests: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &resource);
        server.run_beside(async move {
            loop {
                let mood = *told.lock().unwrap_or_else(PoisonError::into_inner);
                // The server may be away; a request may be gone.
                if let Err(error) = answer_all(&requests, &authority, mood, &seen).await {
                    println!("cert-manager: {error:#}");
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Self { mood, ignored })
    }

    /// Lines of a gateway's configuration.
    #[must_use]
    pub fn settings() -> String {
        format!(
            "ca:\n  backend: cert-manager\n  certManager:\n    namespace: {NAMESPACE}\n    issuer:\n      name: {ISSUER}\n"
        )
    }

    /// How many requests were not answered since it was last turned.
    #[must_use]
    pub fn ignored(&self) -> usize {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What becomes of requests from now on.
    pub fn turn(&self, mood: Mood) {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

/// Lets somebody do this with requests, and nothing else.
pub fn grant(server: &ApiServer, user: &str, verbs: &[&str]) -> Result<()> {
    let allowed =
        json!({"apiGroups": ["cert-manager.io"], "resources": ["certificaterequests"], "verbs": verbs});
    let group = "rbac.authorization.k8s.io";
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role",
        "metadata": {"name": "certificates", "namespace": NAMESPACE}, "rules": [allowed],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "certificates", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "certificates"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    server.apply(&role.to_string())?;
    server.apply(&binding.to_string()).map(drop)
}

async fn answer_all(
    requests: &Api<DynamicObject>,
    authority: &Authority,
    mood: Mood,
    ignored: &Ignored,
) -> Result<()> {
    for request in requests.list(&ListParams::default()).await?.items {
        if request.data.get("status").is_some() {
            continue;
        }
        let name = request.metadata.name.unwrap_or_default();
        let Some(status) = authority.status(&request.data, mood)? else {
            ignored.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
            continue;
        };
        let patch = Patch::Merge(json!({ "status": status }));
        requests.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

impl Authority {
    fn try_new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mesh root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn status(&self, request: &Value, mood: Mood) -> Result<Option<Value>> {
        let condition = |kind: &str, status: &str, reason: &str| {
            let message = format!("the issuer is in this mood: {mood:?}");
            json!({"type": kind, "status": status, "reason": reason, "message": message})
        };
        let approved = condition("Approved", "True", "cert-manager.io");
        Ok(match mood {
            Mood::Silence => None,
            Mood::Deny => Some(json!({"conditions": [
                condition("Denied", "True", "policy.cert-manager.io"), condition("Ready", "False", "Denied"),
            ]})),
            Mood::Refuse => {
                Some(json!({"conditions": [approved, condition("InvalidRequest", "True", "BadConfig")]}))
            }
            Mood::Sign | Mood::AddName => {
                let certificate = self.sign(request, mood == Mood::AddName)?;
                Some(json!({
                    "conditions": [approved, condition("Ready", "True", "Issued")],
                    "certificate": STANDARD.encode(certificate), "ca": STANDARD.encode(&self.certificate),
                }))
            }
        })
    }

    /// As a CA issuer does: the names of the request, the uses and the time of the object.
    fn sign(&self, request: &Value, more: bool) -> Result<String> {
        let spec = request.get("spec").context("no spec")?;
        let csr = String::from_utf8(STANDARD.decode(values::text(spec, "request"))?)?;
        let mut asked = CertificateSigningRequestParams::from_pem(&csr)?;
        if more {
            asked.params.subject_alt_names.push(SanType::DnsName("other.example".try_into()?));
        }
        let seconds: i64 = values::text(spec, "duration").trim_end_matches('s').parse()?;
        let now = OffsetDateTime::now_utc();
        asked.params.not_before = now;
        asked.params.not_after = now + time::Duration::seconds(seconds);
        asked.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        asked.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Ok(asked.signed_by(&self.issuer)?.pem())
    }
}

/// The kind, which takes every field.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificaterequests.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": {
                "kind": "CertificateRequest", "plural": "certificaterequests", "singular": "certificaterequest",
                "listKind": "CertificateRequestList",
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}
