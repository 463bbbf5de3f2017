//! The fields of Kubernetes' `Pod`, by name.

use super::super::decode::{InvalidField, Step};
use super::super::fields::{each, only, only_in};
use super::super::node::Node;

/// Refuses fields that Kubernetes does not have, where fields that matter here stand.
///
/// # Errors
/// [`InvalidField`] for the first.
pub(super) fn check(pod: &Node) -> Result<(), InvalidField> {
    only(pod, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    only_in(pod, "spec", &SPEC)?;
    only_in(pod, "status", &STATUS)?;
    let Some(spec) = pod.get("spec") else { return Ok(()) };
    for list in ["containers", "initContainers"] {
        each(spec, list, |_index, container| only(container, &CONTAINER))
            .map_err(|error| error.within(Step::Field("spec"), spec.position))?;
    }
    Ok(())
}

const SPEC: [&str; 43] = [
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
    "workloadRef",
    "schedulingGroup",
];

const STATUS: [&str; 20] = [
    "allocatedResources",
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "extendedResourceClaimStatus",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "nominatedNodeName",
    "nodeAllocatableResourceClaimStatuses",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "resize",
    "resourceClaimStatuses",
    "startTime",
];

const CONTAINER: [&str; 26] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
    "targetContainerName",
];
