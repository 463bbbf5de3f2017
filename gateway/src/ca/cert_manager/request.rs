//! A `CertificateRequest`, as far as it is needed here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::core::{NamespaceResourceScope, ObjectMeta, Resource};
use pki::Asked;
use serde::{Deserialize, Serialize};

use super::Settings;

const GROUP: &str = "cert-manager.io";
const VERSION: &str = "v1";
const KIND: &str = "CertificateRequest";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const GATEWAY: &str = "outrigger-gateway";

/// What tells our requests from others.
pub(super) const LABEL: &str = "app.kubernetes.io/managed-by=outrigger-gateway";

/// The object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CertificateRequest {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    pub(super) metadata: ObjectMeta,
    spec: Spec,
    #[serde(default, skip_serializing)]
    status: Status,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    request: ByteString,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    #[serde(default, rename = "isCA")]
    is_ca: bool,
    #[serde(default)]
    usages: Vec<String>,
    issuer_ref: IssuerRef,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct IssuerRef {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    group: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
    certificate: Option<ByteString>,
    ca: Option<ByteString>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet.
    None,
    /// It is not signed, and why.
    Refused(String),
    /// It is signed, in PEM.
    Signed {
        /// The certificate, and what is between it and the root.
        certificate: Vec<u8>,
        /// The root, or who signed, where that is known.
        ca: Option<Vec<u8>>,
    },
}

impl CertificateRequest {
    pub(super) fn of(asked: &Asked<'_>, settings: &Settings) -> Self {
        let metadata = ObjectMeta {
            generate_name: Some("outrigger-".to_owned()),
            namespace: Some(settings.namespace.clone()),
            labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), GATEWAY.to_owned())])),
            ..ObjectMeta::default()
        };
        let usages = ["digital signature", "client auth", "server auth"];
        let spec = Spec {
            request: ByteString(asked.csr.to_pem().into_bytes()),
            duration: Some(format!("{}s", asked.lifetime.as_secs())),
            is_ca: false,
            usages: usages.map(str::to_owned).to_vec(),
            issuer_ref: IssuerRef {
                name: settings.name.clone(),
                kind: settings.kind.clone(),
                group: settings.group.clone(),
            },
        };
        let api_version = format!("{GROUP}/{VERSION}");
        Self { api_version, kind: KIND.to_owned(), metadata, spec, status: Status::default() }
    }

    /// A refusal counts before a certificate does.
    pub(super) fn answer(&self) -> Answer {
        let Status { conditions, certificate, ca } = &self.status;
        let find = |kind: &str, status: &str| {
            conditions.iter().find(|condition| condition.kind == kind && condition.status == status)
        };
        let failed = find("Ready", "False").filter(|ready| ["Failed", "Denied"].contains(&&*ready.reason));
        let refused = find("Denied", "True").or_else(|| find("InvalidRequest", "True")).or(failed);
        if let Some(Condition { kind, reason, message, .. }) = refused {
            let name = self.metadata.name.as_deref().unwrap_or_default();
            return Answer::Refused(format!("{KIND} {name}: {kind}, {reason}: {message}"));
        }
        match (find("Ready", "True"), certificate) {
            (Some(_ready), Some(certificate)) => {
                Answer::Signed { certificate: certificate.0.clone(), ca: ca.as_ref().map(|ca| ca.0.clone()) }
            }
            _ => Answer::None,
        }
    }
}

impl Resource for CertificateRequest {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "certificaterequests".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: &serde_json::Value) -> Answer {
        let request = serde_json::json!({
            "apiVersion": "cert-manager.io/v1", "kind": KIND, "metadata": { "name": "outrigger-x" },
            "spec": { "request": "", "issuerRef": { "name": "ca" } }, "status": status,
        });
        serde_json::from_value::<CertificateRequest>(request).unwrap().answer()
    }

    fn condition(kind: &str, status: &str, reason: &str) -> serde_json::Value {
        serde_json::json!({ "type": kind, "status": status, "reason": reason, "message": "because" })
    }

    #[test]
    fn a_request_is_answered_by_its_conditions() {
        let with = |conditions: &[serde_json::Value]| {
            answered(&serde_json::json!({ "conditions": conditions, "certificate": "YQ==" }))
        };
        assert_eq!(with(&[]), Answer::None);
        assert_eq!(with(&[condition("Ready", "False", "Pending")]), Answer::None);
        assert_eq!(with(&[condition("Approved", "True", "policy")]), Answer::None);
        let signed = with(&[condition("Ready", "True", "Issued")]);
        assert_eq!(signed, Answer::Signed { certificate: b"a".to_vec(), ca: None });
        for refused in
            [("Denied", "True", "policy"), ("InvalidRequest", "True", "x"), ("Ready", "False", "Failed")]
        {
            let (kind, status, reason) = refused;
            let answer = with(&[condition("Ready", "True", "Issued"), condition(kind, status, reason)]);
            assert!(matches!(&answer, Answer::Refused(text) if text.contains("because")), "{answer:?}");
        }
        assert_eq!(
            answered(&serde_json::json!({ "conditions": [condition("Ready", "True", "Issued")] })),
            Answer::None
        );
    }
}
