//! cert-manager signs for a mesh: hosts join and renew with requests that name them, and whatever does not fit is refused.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::certmanager::{self, CertManager, Mood, NAMESPACE};
use e2e::cluster::Cluster;
use e2e::command::Answer;
use e2e::gateway::objects::USER;
use e2e::json;
use e2e::wait::wait_ok;

const PATIENCE: Duration = Duration::from_mins(1);

struct World {
    cluster: Cluster,
    certificates: CertManager,
}

impl World {
    fn try_new() -> Result<Self> {
        let mut certificates = None;
        let settings = format!("certificateTtl: 40s\n{}", CertManager::settings());
        let cluster = Cluster::of_api_with(&settings, |server| {
            println!("back end: {}", server.back_end());
            certificates = Some(CertManager::install(server, USER)?);
            Ok(())
        })?;
        let certificates = certificates.ok_or_else(|| anyhow::anyhow!("nothing was installed"))?;
        cluster.group("db")?;
        Ok(Self { cluster, certificates })
    }

    /// Asks for a certificate of an administrator.
    fn issue(&self) -> Result<Answer> {
        let out = self.cluster.gateway.host().folder().join("admin").display().to_string();
        self.cluster.gateway.command(&["admin", "issue", "ann", "--out", &out])
    }

    fn refused(&self, mood: Mood, words: &[&str]) -> Result<()> {
        self.certificates.turn(mood);
        let answer = self.issue()?;
        ensure!(!answer.succeeded(), "{mood:?}: {answer:?}");
        for word in words {
            ensure!(answer.stderr.contains(word), "{mood:?}, {word}: {}", answer.stderr);
        }
        Ok(())
    }
}

#[test]
fn cert_manager_signs_and_everything_else_is_refused() -> Result<()> {
    let mut world = World::try_new()?;
    let db = world.cluster.member("db", "db-1")?;
    let roots = world.cluster.gateway.command(&["ca", "list", "-o", "json"])?.json()?;
    let roots = json::list(&roots, "roots");
    ensure!(roots.len() == 1 && roots.iter().all(|root| json::flag(root, "active")), "{roots:?}");
    let add = world.cluster.gateway.command(&["ca", "add"])?;
    ensure!(!add.succeeded() && add.stderr.contains("Issuer mesh-ca"), "{add:?}");
    ensure!(world.issue()?.succeeded(), "an administrator");

    // Certificates of 40 s: the agent renews by itself.
    wait_ok("a renewal", PATIENCE, || {
        let renewed = world.cluster.gateway.audit()?.into_iter().filter(|line| {
            json::text(line, "event") == "renewed" && json::text(line, "workload") == "shop/db-1"
        });
        ensure!(renewed.count() > 0, "not renewed");
        Ok(())
    })?;

    let called = ["cert-manager (Issuer mesh-ca, requests in mesh)"];
    world.refused(Mood::Deny, &[called[0], "Denied", "policy.cert-manager.io", "in this mood"])?;
    world.refused(Mood::Refuse, &[called[0], "InvalidRequest", "BadConfig"])?;
    world.refused(Mood::AddName, &[called[0], "something else", "alternative names that are no URIs"])?;
    world.refused(Mood::Silence, &[called[0], "not available", "no answer in 8 s"])?;
    // A host that is refused has its token still.
    world.certificates.turn(Mood::Deny);
    let token = world.cluster.gateway.token("shop/db", &[])?;
    let agent = e2e::agent::Agent::start(&world.cluster.net.host("db-2")?)?;
    let denied = agent.join(&token.text);
    ensure!(denied.as_ref().is_err_and(|error| format!("{error:#}").contains("Denied")), "{denied:?}");
    world.certificates.turn(Mood::Sign);
    agent.join(&token.text)?;
    agent.wait_enforcing()?;
    db.wait_enforcing()?;

    let server = world.cluster.server()?;
    world.certificates.turn(Mood::Silence);
    certmanager::grant(server, USER, &["get", "list", "delete"])?;
    wait_ok("requests to be removed", PATIENCE, || {
        let left = server.list("cert-manager.io/v1", "CertificateRequest", NAMESPACE)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    world.refused(Mood::Sign, &["HTTP 403", "cannot create resource", "certificaterequests"])
}

#[test]
fn a_gateway_that_starts_while_nobody_signs_waits_and_hosts_come_back() -> Result<()> {
    let mut world = World::try_new()?;
    let db = world.cluster.member("db", "db-1")?;
    world.cluster.gateway.kill()?;
    world.certificates.turn(Mood::Silence);
    let _started = world.cluster.gateway.spawn()?;
    wait_ok("to be asked again", PATIENCE, || {
        ensure!(world.certificates.ignored() > 1, "asked {} times", world.certificates.ignored());
        Ok(())
    })?;
    let status = db.command(&["status", "-o", "json"])?.json()?;
    ensure!(json::text(&status, "phase") == "enforcing", "{status:#}");
    world.certificates.turn(Mood::Sign);
    wait_ok("all hosts to be back", PATIENCE, || {
        let status = world.cluster.gateway.status()?;
        ensure!(json::number(&status, "sessions") == 2, "{status:#}");
        Ok(())
    })
}
