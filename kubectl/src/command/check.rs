//! `policy check`: by the code of the gateway, over what the cluster has.

use std::path::PathBuf;

use gateway::check::{self, Extent, File, Standing};
use gateway::source::cluster;
use kube::Client;
use proto::v1;

use crate::arguments::Format;
use crate::failure::Failure;

/// The cluster as a gateway would take it.
pub(super) async fn standing(client: &Client, cluster_name: &str) -> Result<Standing, Failure> {
    let objects = cluster::read(client).await?;
    Standing::of(objects, cluster_name).map_err(|error| Failure::Failed(error.to_string()))
}

/// Opens files.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let files = paths.iter().map(|path| File::open(path)).collect::<Result<_, _>>();
    files.map_err(|unreadable| Failure::Usage(unreadable.to_string()))
}

/// Whether files are valid.
pub(super) fn form(paths: &[PathBuf], format: Format) -> Result<(), Failure> {
    show(&check::form(&open(paths)?), Extent::Form, format)
}

/// What the policies of a namespace do that the cluster has; those of all namespaces if none is named.
pub(super) fn in_force(standing: &Standing, namespace: Option<&str>, format: Format) -> Result<(), Failure> {
    let is_wanted = |own: &str| namespace.is_none_or(|namespace| namespace == own);
    let answer = standing.in_force(is_wanted);
    if answer.objects.is_empty() && format == Format::Text {
        console::note("no policies");
    }
    show(&answer, Extent::InForce, format)
}

/// What files would do.
pub(super) fn change(standing: &Standing, files: &[File], format: Format) -> Result<(), Failure> {
    let answer = check::answer(standing.facts(), files);
    let mut answer = answer.map_err(|error| Failure::Failed(error.to_string()))?;
    answer.warnings.extend(standing.rejected().iter().map(|told| format!("in the cluster: {told}")));
    show(&answer, Extent::Change, format)
}

fn show(answer: &v1::CheckPolicyResponse, extent: Extent, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => console::json(&check::as_json(answer, extent))?,
        Format::Text => check::as_text(answer, extent).iter().try_for_each(|line| console::line(line))?,
    }
    check::refusals(answer).map_or(Ok(()), |refused| Err(Failure::Failed(refused)))
}
