//! `admin issue`: the key is made here and never leaves this machine.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use pki::{CertificateDer, KeyPair, SpiffeId};
use proto::v1;
use serde_json::json;

use super::connection::{Arguments, BUNDLE_FILE, CERTIFICATE_FILE, KEY_FILE};
use super::failure::Failure;
use super::output::{self, Format};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Issues a certificate, valid for 24 hours, with which the gateway can be administered from elsewhere.
    #[command(after_help = "Use it with --gateway HOST:PORT --credentials DIR on any command but this one.")]
    Issue {
        /// Who will use it; the audit log names it.
        name: String,
        /// Folder for admin.key, admin.pem and bundle.pem; made where it does not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let mut client = arguments.connection.connect().await?;
    let Action::Issue { name, out } = arguments.action;
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let key = KeyPair::generate().map_err(|e| failed(&e))?;
    let csr = key.request().map_err(|e| failed(&e))?;
    let mut issued =
        client.issue_admin(v1::IssueAdminRequest { name: name.clone(), csr }).await?.into_inner();
    if !issued.request_for.is_empty() {
        let id: SpiffeId = issued.request_for.parse().map_err(|e: pki::InvalidSpiffeId| failed(&e))?;
        let csr = key.request_for(&id).map_err(|e| failed(&e))?;
        issued = client.issue_admin(v1::IssueAdminRequest { name: name.clone(), csr }).await?.into_inner();
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&out).map_err(|e| unwritten(&out, &e))?;
    write(&out, KEY_FILE, &key.to_pem())?;
    write(&out, CERTIFICATE_FILE, &pem(issued.certificate_chain))?;
    write(&out, BUNDLE_FILE, &pem(issued.trust_bundle))?;
    match arguments.connection.output {
        Format::Json => output::json(&json!({ "name": name, "expires": issued.expires, "out": out })),
        Format::Text => output::line(&format!(
            "certificate of administrator {name}, valid until {}, is in {}",
            output::moment(issued.expires),
            out.display()
        )),
    }
}

fn pem(certificates: Vec<Vec<u8>>) -> String {
    pki::certificates_to_pem(&certificates.into_iter().map(CertificateDer::from).collect::<Vec<_>>())
}

/// Writes a file that only its owner reads, whatever was there before.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let draft = folder.join(format!(".{name}.new"));
    let written = (|| {
        let _absent = std::fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    })();
    written.map_err(|e| unwritten(&path, &e))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", path.display()))
}
