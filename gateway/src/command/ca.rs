//! `ca list|add|activate|retire`.

use clap::Subcommand;
use proto::v1;
use proto::v1::change_roots_request::Change;
use serde_json::json;

use super::connection::Arguments;
use super::failure::Failure;
use super::output::{self, Format};

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A rotation is `add`, then `activate` the new root, then `retire` the old one. The last two are \
                        refused until every host is ready: hosts that are connected are asked to renew at each step, which \
                        takes seconds, or minutes with thousands of them."
)]
pub(super) enum Action {
    /// Lists the roots, with how many hosts trust each and have certificates of it.
    List,
    /// Makes a new root. Hosts are asked to fetch it; it does not sign yet.
    Add,
    /// Lets a root sign, instead of the one that does now.
    Activate {
        /// The root's id, as in `ca list`.
        id: String,
        /// Also while hosts do not trust it: these do not come back.
        #[arg(long)]
        force: bool,
    },
    /// Forgets a root that does not sign any more.
    Retire {
        /// The root's id, as in `ca list`.
        id: String,
        /// Also while hosts have certificates of it: these do not come back.
        #[arg(long)]
        force: bool,
    },
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let mut client = arguments.connection.connect().await?;
    let (change, force) = match arguments.action {
        Action::List => {
            let listed = client.list_roots(v1::ListRootsRequest {}).await?.into_inner();
            return show(&listed.roots, arguments.connection.output);
        }
        Action::Add => (Change::Add(v1::AddRoot {}), false),
        Action::Activate { id, force } => (Change::Activate(id), force),
        Action::Retire { id, force } => (Change::Retire(id), force),
    };
    let request = v1::ChangeRootsRequest { change: Some(change), force };
    show(&client.change_roots(request).await?.into_inner().roots, arguments.connection.output)
}

fn show(roots: &[v1::Root], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let roots: Vec<_> = roots.iter().map(as_json).collect();
        return output::json(&json!({ "roots": roots }));
    }
    output::table(
        &["ID", "SIGNS", "ADDED", "EXPIRES", "TRUSTED BY", "HAS SIGNED FOR"],
        roots.iter().map(|root| {
            vec![
                root.id.clone(),
                if root.active { "yes" } else { "no" }.to_owned(),
                output::moment(root.added),
                output::moment(root.expires),
                format!("{} of {} hosts", root.trusted_by, root.hosts),
                format!("{} of {} hosts", root.signed, root.hosts),
            ]
        }),
    )
}

fn as_json(root: &v1::Root) -> serde_json::Value {
    json!({
        "id": root.id,
        "active": root.active,
        "added": root.added,
        "expires": root.expires,
        "trustedBy": root.trusted_by,
        "signed": root.signed,
        "hosts": root.hosts,
    })
}
