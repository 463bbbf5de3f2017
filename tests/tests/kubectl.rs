//! `kubectl outrigger` against a cluster with a gateway and a host.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use e2e::agent::Agent;
use e2e::binaries::{self, Binary};
use e2e::cluster::Cluster;
use e2e::command::Answer;
use e2e::gateway::objects::Objects;
use e2e::json;

struct World {
    cluster: Cluster,
    kubeconfig: PathBuf,
    /// Where the stand-in of kubectl is, which has no other way into a pod than the machine's own.
    tools: tempfile::TempDir,
}

impl World {
    fn try_new() -> Result<Self> {
        let mut cluster = Cluster::of_api()?;
        let Objects::Cluster(api) = cluster.gateway.objects() else { bail!("no cluster") };
        println!("back end: {}", api.server.back_end());
        let kubeconfig = api.server.kubeconfig("admin");
        cluster.group("db")?;
        let tools = tempfile::tempdir()?;
        let (holder, words) = (cluster.gateway.host().namespace().holder(), tools.path().join("words"));
        let script = format!(
            "#!/bin/sh\necho \"$*\" > {}\nwhile [ \"$1\" != -- ]; do shift; done; shift\n\
             exec nsenter --mount=/proc/{holder}/ns/mnt --net=/proc/{holder}/ns/net -- \"$@\"\n",
            words.display()
        );
        let path = tools.path().join("kubectl");
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(Self { cluster, kubeconfig, tools })
    }

    fn kubectl(&mut self, words: &[&str], input: &str) -> Result<Answer> {
        Binary::Kubectl.path()?;
        let folders = [self.tools.path(), &binaries::folder()?].map(|folder| folder.display().to_string());
        let path = format!("PATH={}:{}", folders.join(":"), std::env::var("PATH")?);
        let kubeconfig = self.kubeconfig.display().to_string();
        let fixed = ["env", &path, Binary::Kubectl.name(), "--kubeconfig", &kubeconfig, "-n", "shop"];
        let all: Vec<&str> = fixed.into_iter().chain(words.iter().copied()).collect();
        let Objects::Cluster(api) = self.cluster.gateway.objects() else { bail!("no cluster") };
        api.server.host().run_with(&all, input)
    }
}

#[test]
fn a_token_is_made_without_the_secret_leaving_the_machine() -> Result<()> {
    let mut world = World::try_new()?;
    let answer = world.kubectl(&["token", "create", "--group", "db", "--uses", "2"], "")?.ok()?;
    let token = answer.stdout.trim().to_owned();
    ensure!(token.starts_with("ogr1_") && token.lines().count() == 1, "{answer}");
    ensure!(answer.stderr.contains("sudo outrigger join"), "{answer}");
    let host = Agent::start(&world.cluster.net.host("db-1")?)?;
    host.join(&token)?;
    host.wait_enforcing()?;

    let made = world.kubectl(&["token", "create", "--group", "db", "-o", "json"], "")?.json()?;
    let id = json::text(&made, "id").to_owned();
    ensure!(id.starts_with("shop/db-"), "{made}");
    world.kubectl(&["token", "create", "--group", "web"], "")?.refused_with(&["there is no group"])?;
    world.kubectl(&["token", "create", "--group", "db", "--uses", "0"], "")?.refused_with(&["maxUses"])?;
    world.kubectl(&["token", "create", "--group", "db", "--ttl", "soon"], "")?.refused_with(&["ttl"])?;
    // What nobody could join with is not left behind.
    let Objects::Cluster(api) = world.cluster.gateway.objects() else { bail!("no cluster") };
    let tokens = api.server.list("outrigger.dev/v1alpha1", "JoinToken", "shop")?;
    let is_of_web = |token: &&serde_json::Value| json::text(json::at(token, &["spec"]), "group") == "web";
    ensure!(!tokens.iter().any(|token| is_of_web(&token)), "{tokens:#?}");

    let status = world.kubectl(&["status"], "")?.ok()?;
    ensure!(status.stdout.contains("db-1") && status.stdout.contains("GROUP"), "{status}");
    let all = world.kubectl(&["status", "-A", "-o", "json"], "")?.json()?;
    ensure!(json::list(&all, "workloads").len() == 1, "{all}");
    Ok(())
}

#[test]
fn what_only_the_gateway_knows_is_asked_of_it() -> Result<()> {
    let mut world = World::try_new()?;
    let _db = world.cluster.member("db", "db-1")?;
    let described = world.kubectl(&["workload", "describe", "db-1"], "")?.ok()?;
    ensure!(described.stdout.contains("shop/db-1"), "{described}");
    let words = std::fs::read_to_string(world.tools.path().join("words"))?;
    let expected =
        "--namespace outrigger exec -i deploy/outrigger -- outrigger-gateway workload describe shop/db-1";
    ensure!(words.trim().ends_with(expected), "{words}");

    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: shop}\n\
                spec: {podSelector: {}, policyTypes: [Ingress]}\n";
    let checked = world.kubectl(&["policy", "check", "-", "-o", "json"], deny)?.json()?;
    ensure!(checked.to_string().contains("closed"), "{checked}");
    let refused = world.kubectl(&["policy", "check", "-"], &deny.replace("podSelector", "hostSelector"))?;
    ensure!(refused.code == Some(1), "the gateway's own exit code: {refused}");
    world.kubectl(&["policy", "check", "/nowhere.yaml"], "")?.with_code(2)?;
    Ok(())
}
