//! The cluster: a client with the administrator's rights, and the gateway's own command by `kubectl exec`.

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::arguments::Target;
use crate::failure::Failure;

/// A client, and the namespace that is meant.
pub(crate) async fn connect(target: &Target) -> Result<(Client, String), Failure> {
    let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
    let config = match &target.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None => Config::from_kubeconfig(&options).await?,
    };
    let namespace = target.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(Failure::cluster("the client of the API"))?;
    Ok((client, namespace))
}

/// Runs `outrigger-gateway` in the gateway's pod with these words and this input, and passes on what it says and its exit
/// code.
pub(crate) fn in_gateway(target: &Target, words: &[&str], input: &[u8]) -> Result<ExitCode, Failure> {
    let Some((namespace, deployment)) = target.gateway.split_once('/') else {
        return Err(Failure::Usage(format!("--gateway {:?} is no NAMESPACE/DEPLOYMENT", target.gateway)));
    };
    let mut kubectl = Command::new("kubectl");
    if let Some(path) = &target.kubeconfig {
        kubectl.arg("--kubeconfig").arg(path);
    }
    if let Some(context) = &target.context {
        kubectl.args(["--context", context]);
    }
    kubectl.args([
        "--namespace",
        namespace,
        "exec",
        "-i",
        &format!("deploy/{deployment}"),
        "--",
        "outrigger-gateway",
    ]);
    let mut process = kubectl.args(words).stdin(Stdio::piped()).spawn().map_err(|error| {
        Failure::Gateway(format!(
            "`kubectl`, which reaches the gateway's own command, cannot be started: {error}"
        ))
    })?;
    if let Some(mut stdin) = process.stdin.take() {
        // A command that reads nothing may have ended.
        let _closed = stdin.write_all(input);
    }
    let status = process.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
