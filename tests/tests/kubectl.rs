//! `kubectl outrigger` against a cluster with a gateway: tokens that hosts join with, and what policies do, found out from the
//! objects alone.

use anyhow::{Result, ensure};
use e2e::agent::Agent;
use e2e::binaries::Binary;
use e2e::cluster::{Cluster, allow_ingress};
use e2e::command::Answer;
use e2e::gateway::objects::{RIGHTS, USER};
use e2e::json;

const VERSION: &str = "outrigger.dev/v1alpha1";

/// Runs the plugin as a user, in the namespace `shop`.
fn kubectl(cluster: &mut Cluster, user: &str, words: &[&str], input: &str) -> Result<Answer> {
    Binary::Kubectl.path()?;
    let server = cluster.server()?;
    let kubeconfig = server.kubeconfig(user).display().to_string();
    let fixed = [Binary::Kubectl.name(), "--kubeconfig", &kubeconfig, "-n", "shop"];
    let all: Vec<&str> = fixed.into_iter().chain(words.iter().copied()).collect();
    server.host().run_with(&all, input)
}

#[test]
fn a_token_is_made_without_the_secret_leaving_the_machine() -> Result<()> {
    let mut cluster = Cluster::of_api()?;
    println!("back end: {}", cluster.server()?.back_end());
    let mut run = |words: &[&str]| kubectl(&mut cluster, "admin", words, "");
    // Nothing is made for a group that is not there, nor of what is asked wrongly.
    run(&["token", "create", "--group", "db"])?
        .with_code(1)?
        .refused_with(&["group shop/db", "not found"])?;
    run(&["token", "create", "--group", "db", "--uses", "0"])?.with_code(2)?.refused_with(&["--uses"])?;
    cluster.group("db")?;
    let mut run = |words: &[&str]| kubectl(&mut cluster, "admin", words, "");
    let answer = run(&["token", "create", "--group", "db", "--ttl", "1h", "--uses", "2"])?.ok()?;
    ensure!(answer.stdout.starts_with("ogr1_") && answer.stdout.lines().count() == 1, "{answer}");
    ensure!(answer.stderr.contains("sudo outrigger join"), "{answer}");
    let made = run(&["token", "create", "--group", "db", "-o", "json"])?.json()?;
    ensure!(json::text(&made, "id").starts_with("shop/db-"), "{made}");
    let host = Agent::start(&cluster.net.host("db-1")?)?;
    host.join(answer.stdout.trim())?;
    host.wait_enforcing()?;

    let mut run = |words: &[&str]| kubectl(&mut cluster, "admin", words, "");
    let status = run(&["status"])?.ok()?;
    ensure!(status.stdout.contains("db-1") && status.stdout.contains("READY"), "{status}");
    let all = run(&["status", "-A", "-o", "json"])?.json()?;
    ensure!(json::list(&all, "workloads").len() == 1, "{all}");
    // The machine is replaced: a token for it alone.
    let token = run(&["token", "create", "--group", "db", "--replace", "db-1"])?.ok()?.stdout;
    let other = Agent::start(&cluster.net.host("db-9")?)?;
    other.command_with(&["join", "--token-stdin", "--name", "db-1"], &token)?.ok()?;

    // Without a gateway nobody says what belongs into a token: whoever waits no longer leaves none behind.
    let known = cluster.server()?.list(VERSION, "JoinToken", "shop")?.len();
    cluster.gateway.kill()?;
    let server = cluster.server()?;
    let kubeconfig = server.kubeconfig("admin").display().to_string();
    let words = ["timeout", "--preserve-status", "-s", "INT", "2", Binary::Kubectl.name(), "--kubeconfig"];
    let words = words.into_iter().chain([&*kubeconfig, "-n", "shop", "token", "create", "--group", "db"]);
    let stopped = server.host().run(&words.collect::<Vec<_>>())?.with_code(130)?;
    ensure!(stopped.stdout.is_empty() && stopped.stderr.contains("interrupted"), "{stopped}");
    ensure!(server.list(VERSION, "JoinToken", "shop")?.len() == known, "a token is left behind");
    Ok(())
}

#[test]
fn what_policies_do_is_told_from_the_objects() -> Result<()> {
    let mut cluster = Cluster::of_api()?;
    cluster.group("db")?;
    let db = cluster.member("db", "db-1")?;
    let policy = allow_ingress("db", "db", &["web"], Some(5432));
    cluster.publish("policy.yaml", &policy)?;
    let odd = policy.replace("name: db", "name: odd") + "  constraint: 1\n";
    // With the rights to list, and no others.
    let mut run = |words: &[&str], input: &str| kubectl(&mut cluster, USER, words, input);
    let described = run(&["workload", "describe", "db-1"], "")?.ok()?;
    for expected in
        ["shop/db-1", "k8s:app=db;", "NetworkPolicy/shop/db", "deny what no policy allows", "Ready"]
    {
        ensure!(described.stdout.contains(expected), "{expected}: {described}");
    }
    let asked = run(&["workload", "describe", "db-1", "-o", "json"], "")?.json()?;
    ensure!(json::texts(&asked, "policies") == ["NetworkPolicy/shop/db"], "{asked:#}");
    let identity = json::number(json::at(&asked, &["status"]), "identity");
    ensure!(identity == db.identity()?, "{asked:#}");
    run(&["workload", "describe", "db-7"], "")?.with_code(1)?.refused_with(&["shop/db-7", "not found"])?;

    let own = run(&["policy", "check"], "")?.ok()?;
    ensure!(own.stdout.contains("NetworkPolicy/shop/db: valid, selects shop/db-1"), "{own}");
    let closed = allow_ingress("db", "db", &[], None);
    let checked = run(&["policy", "check", "-", "-o", "json"], &closed)?.json()?;
    let [object] = json::list(&checked, "objects") else { anyhow::bail!("{checked:#}") };
    ensure!(json::flag(object, "replaces") && json::texts(object, "selects") == ["shop/db-1"], "{checked:#}");
    run(&["policy", "check", "-"], &odd)?.with_code(1)?.refused_with(&["an object is refused"])?;
    run(&["policy", "check", "/nowhere.yaml"], "")?.with_code(2)?.refused_with(&["/nowhere.yaml"])?;

    // What may not be read is named, and what may be is told.
    cluster.api()?.grant(&RIGHTS[4..])?;
    let mut run = |words: &[&str]| kubectl(&mut cluster, USER, words, "");
    let refused = run(&["workload", "describe", "db-1"])?.with_code(1)?;
    ensure!(refused.stdout.contains("shop/db-1"), "{refused}");
    refused.refused_with(&["cannot list resource", "policy-reader"])?;
    Ok(())
}
