//! Policy as its author sees it: edits, mistakes, relabels, and what the commands say about them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::events;
use e2e::cluster::{group, pod_manifest};
use e2e::host::Host;
use e2e::json;
use e2e::process::Process;
use e2e::shared::Shared;
use e2e::shop::{Shop, TCP, Traffic, db_clients, pings};
use e2e::traffic::tcp::{EchoReport, StreamReport};
use e2e::wait::{monotonic_ns, wait_for, wait_ok};
use serde_json::Value;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(5);

/// What an edit may take from the saved file to every kernel.
const EDIT_LIMIT: Duration = Duration::from_millis(250);

/// How long a connection must be silent to count as cut.
const SILENCE_NS: u64 = 600_000_000;

fn connection(to: &Host, from: &Host, label: &str, server: SocketAddr) -> Result<(Process, Process)> {
    let echo = to.traffic(&format!("echo-{label}"), &format!("tcp-echo --port {}", server.port()))?;
    wait_for("the echo", PATIENCE, || echo.report::<EchoReport>().is_ok_and(|report| report.listening))?;
    let stream = from.traffic(&format!("stream-{label}"), &format!("tcp-stream --to {server}"))?;
    wait_for("a connection", PATIENCE, || stream.report::<StreamReport>().is_ok_and(|r| r.echoed > 20))
        .with_context(|| stream.output())?;
    Ok((echo, stream))
}

/// How long after `saved` the last record came back, once there is silence.
fn cut_after(stream: &Process, saved: u64) -> Result<Duration> {
    let mut last = 0;
    wait_for("silence", PATIENCE, || {
        last = stream.report::<StreamReport>().map(|report| report.last_ns).unwrap_or_default();
        monotonic_ns() > last.max(saved) + SILENCE_NS
    })?;
    Ok(Duration::from_nanos(last.saturating_sub(saved)))
}

/// Waits until `from` does or does not reach `db-1`, in both families.
fn reaches(shop: &Shop, from: &Host, expected: bool) -> Result<()> {
    for address in shop.db.addresses()? {
        wait_ok("the policy to show", PATIENCE, || {
            let found = pings(from, address, 56)?;
            ensure!(found == expected, "{} reaches {address}: {found}", from.name());
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_edit_cuts_the_established_connection_at_once() {
    SHOP.test(|shop| {
        for (address, port) in shop.db.addresses()?.into_iter().zip([TCP, TCP + 1]) {
            let label = port.to_string();
            let server = SocketAddr::new(address, port);
            let (_echo, stream) = connection(&shop.db.host, &shop.api, &label, server)?;
            let monitor = shop.db.monitor(&format!("monitor-{label}"))?;
            let saved = shop.cluster.gateway.apply("db-clients.yaml", &db_clients(&["nobody"]))?;
            let took = cut_after(&stream, saved)?;
            ensure!(took < EDIT_LIMIT, "{address} was cut after {took:?}");
            wait_for("the cut in monitor", PATIENCE, || {
                events(&monitor).iter().any(|event| {
                    json::text(event, "verdict") == "cut"
                        && json::text(event, "rule").contains("shop/db-clients")
                })
            })
            .with_context(|| monitor.output())?;
            shop.cluster.publish("db-clients.yaml", &db_clients(&["api"]))?;
        }
        Ok(())
    });
}

#[test]
fn an_edit_opens_what_was_closed() {
    SHOP.test(|shop| {
        reaches(shop, &shop.web, false)?;
        shop.cluster.publish("db-clients.yaml", &db_clients(&["api", "web"]))?;
        reaches(shop, &shop.web, true)?;
        shop.cluster.publish("db-clients.yaml", &db_clients(&["api"]))?;
        reaches(shop, &shop.web, false)
    });
}

/// What a check foretells is what happens, and nothing happens by checking.
#[test]
fn a_check_foretells_what_an_edit_does() {
    SHOP.test(|shop| {
        reaches(shop, &shop.web, false)?;
        let gateway = &shop.cluster.gateway;
        let file = gateway.manifests().with_extension("checked");
        std::fs::write(&file, db_clients(&["api", "web"]))?;
        let path = file.to_str().context("a path of text")?;
        let check = || -> Result<Value> { gateway.command(&["policy", "check", path, "-o", "json"])?.json() };
        let checked = check()?;
        let object = json::list(json::at(&checked, &["objects"]), "objects").first().context("an object")?;
        ensure!(
            object["replaces"] == true && object["selects"].to_string().contains("shop/db-1"),
            "{checked}"
        );
        let changes = json::list(json::at(&checked, &["changes"]), "changes");
        let web = changes.iter().filter(|change| change["remoteOwner"] == "shop/web");
        let families = web
            .filter(|change| change["before"]["verdict"] == "deny" && change["after"]["verdict"] == "allow")
            .count();
        ensure!(families == 2 && changes.len() == 2, "IPv4 and IPv6 of web: {checked}");
        reaches(shop, &shop.web, false)?;
        shop.cluster.publish("db-clients.yaml", &db_clients(&["api", "web"]))?;
        reaches(shop, &shop.web, true)?;
        ensure!(
            json::list(json::at(&check()?, &["changes"]), "changes").is_empty(),
            "what is in force changes something"
        );
        let text = gateway.command(&["policy", "check", path])?.ok()?;
        ensure!(text.stdout.ends_with("No verdict changes.\n"), "{text}");
        shop.cluster.publish("db-clients.yaml", &db_clients(&["api"]))?;
        std::fs::write(&file, db_clients(&["api"]).replace("ingress:", "ingres:"))?;
        for words in [&["policy", "check", path][..], &["policy", "check", "--offline", path]] {
            let refused = gateway.command(words)?;
            ensure!(
                refused.code == Some(1) && refused.stdout.contains("spec.ingres"),
                "{words:?}: {refused}"
            );
        }
        Ok(std::fs::remove_file(file)?)
    });
}

#[test]
fn a_file_that_is_no_yaml_leaves_its_last_good_version_in_force() {
    SHOP.test(|shop| {
        let good = db_clients(&["api"]);
        for bad in [good.replace("podSelector:", "podSelector: ["), good.replace("ingress:", "ingres:")] {
            shop.cluster.gateway.apply("db-clients.yaml", &bad)?;
            let status = shop.cluster.gateway.wait_status("the rejection", |status| {
                json::list(json::at(status, &["rejected"]), "rejected")
                    .iter()
                    .any(|entry| json::text(entry, "file").starts_with("db-clients.yaml"))
            })?;
            let text = status.to_string();
            ensure!(
                text.contains("line") || text.contains("ingres"),
                "neither line nor field is named: {text}"
            );
            let metrics = ["traffic", "get", "http://127.0.0.1:9464/metrics"];
            let metrics = shop.cluster.node.run(&metrics)?.ok()?;
            ensure!(metrics.stdout.contains("rejected_objects 1"), "{metrics}");
            reaches(shop, &shop.api, true)?;
            reaches(shop, &shop.web, false)?;
        }
        // Also across a restart of the gateway.
        shop.cluster.gateway.stop()?;
        shop.cluster.gateway.launch()?;
        shop.db.wait_enforcing()?;
        reaches(shop, &shop.api, true)?;
        reaches(shop, &shop.web, false)?;
        shop.cluster.gateway.apply("db-clients.yaml", &good)?;
        shop.cluster.gateway.wait_status("no rejection", |status| {
            json::list(json::at(status, &["rejected"]), "rejected").is_empty()
        })?;
        Ok(())
    });
}

#[test]
fn a_policy_that_was_never_valid_isolates_whom_it_selects() {
    SHOP.test(|shop| {
        let batch = shop.batch.addresses()?;
        let [first, _] = batch;
        ensure!(pings(&shop.api, first, 56)?, "batch-1 is not reachable to begin with");
        let unknown = db_clients(&["api"])
            .replace("db-clients", "half-right")
            .replace("app: db", "app: batch")
            .replace("- from:", "- frum:");
        shop.cluster.publish("half-right.yaml", &unknown)?;
        for address in batch {
            wait_for("the isolation", PATIENCE, || matches!(pings(&shop.api, address, 56), Ok(false)))?;
        }
        let status = shop.batch.status()?;
        ensure!(json::flag(&status, "ingress_default_deny"), "{status:#}");
        ensure!(!json::flag(&status, "egress_default_deny"), "{status:#}");
        let rejected = json::texts(&status, "rejected").join(" ");
        ensure!(rejected.contains("half-right"), "the host does not show it: {status:#}");
        // One without a readable selector touches nothing.
        let unreadable =
            unknown.replace("podSelector:\n    matchLabels:\n      app: batch", "podSelector: 7");
        shop.cluster.gateway.apply("half-right.yaml", &unreadable.replace("half-right", "unreadable"))?;
        for address in batch {
            wait_for("the isolation to end", PATIENCE, || matches!(pings(&shop.api, address, 56), Ok(true)))?;
        }
        reaches(shop, &shop.api, true)?;
        shop.cluster.gateway.remove("half-right.yaml")?;
        shop.cluster.settle()
    });
}

#[test]
fn a_relabel_under_traffic_drops_nothing() {
    SHOP.test(|shop| {
        let labels: [&[(&str, &str)]; 2] = [&[("app", "api"), ("tier", "gold")], &[("app", "api")]];
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        let before = shop.db.counted("spoofed")? + shop.db.counted("unknown_source")?;
        for labels in labels {
            shop.cluster.publish("pod-api.yaml", &pod_manifest(&shop.api, labels))?;
            traffic.wait_flowing(100)?;
            let mut group_labels = labels.to_vec();
            group_labels[0] = ("app", "db");
            shop.cluster.publish("group-db.yaml", &group("db", &group_labels, ""))?;
            traffic.wait_flowing(100)?;
        }
        traffic.finish()?;
        let after = shop.db.counted("spoofed")? + shop.db.counted("unknown_source")?;
        ensure!(after == before, "{} packets failed the source check", after - before);
        shop.db.wait_status("the old labels", |status| !json::text(status, "labels").contains("gold"))?;
        Ok(())
    });
}

#[test]
fn monitor_and_trace_and_list_name_the_rule() {
    SHOP.test(|shop| {
        let monitor = shop.db.monitor("monitor")?;
        for (db, web) in shop.db.addresses()?.into_iter().zip(shop.web.addresses()) {
            let web = web.to_string();
            let event = wait_ok("the refusal in monitor", PATIENCE, || {
                ensure!(!pings(&shop.web, db, 56)?, "not refused");
                let found = events(&monitor).into_iter().find(|event| {
                    json::text(event, "source") == web && json::text(event, "reason") == "policy_denied"
                });
                found.context("no event")
            })?;
            ensure!(json::text(&event, "rule").contains("NetworkPolicy/shop/db-clients"), "{event:#}");
            ensure!(json::text(&event, "direction") == "ingress", "{event:#}");

            let trace = |remote: &str| {
                let words = ["policy", "trace", "--direction", "ingress", "--remote", remote];
                shop.db
                    .command(&[&words[..], &["--protocol", "tcp", "--port", "5432", "-o", "json"]].concat())?
                    .json()
            };
            let refused = trace(&web)?;
            ensure!(json::text(&refused, "verdict") == "deny", "{refused:#}");
            ensure!(json::text(&refused, "kernel_verdict") == "deny", "{refused:#}");
            let api = shop.api.addresses().into_iter().find(|api| api.is_ipv4() == db.is_ipv4());
            let allowed = trace(&api.context("no address")?.to_string())?;
            ensure!(json::text(&allowed, "verdict") == "allow", "{allowed:#}");
            ensure!(
                json::text(&allowed, "rule").contains("NetworkPolicy/shop/db-clients#ingress[0]"),
                "{allowed:#}"
            );
            ensure!(json::text(&allowed, "kernel_verdict") == "allow", "{allowed:#}");
        }
        let listed = shop.db.command(&["policy", "list"])?.ok()?;
        ensure!(listed.stdout.contains("NetworkPolicy/shop/db-clients#ingress[0]"), "{listed}");
        Ok(())
    });
}

#[test]
fn egress_policy_and_audit_mode() {
    SHOP.test(|shop| {
        let [db4, _] = shop.batch.addresses()?;
        let [api, _] = shop.api.addresses();
        let [web, _] = shop.web.addresses();
        let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  namespace: shop\n  \
            name: batch-out\nspec:\n  podSelector:\n    matchLabels:\n      app: batch\n  policyTypes: [Egress]\n  \
            egress:\n    - to:\n        - ipBlock:\n            cidr: 10.100.0.0/16\n            except: [10.100.1.3/32]\n";
        shop.cluster.publish("batch-out.yaml", policy)?;
        wait_for("the refusal", PATIENCE, || matches!(pings(&shop.batch.host, web, 56), Ok(false)))?;
        ensure!(pings(&shop.batch.host, api, 56)?, "the block is not allowed");
        ensure!(pings(&shop.web, db4, 56)?, "an egress policy touches ingress");

        let audit = group("batch", &[("app", "batch")], "  mode: audit\n");
        shop.cluster.publish("group-batch.yaml", &audit)?;
        shop.batch.wait_status("audit", |status| json::text(status, "mode") == "audit")?;
        let before = shop.batch.counted("audited")?;
        ensure!(pings(&shop.batch.host, web, 56)?, "audit mode drops");
        ensure!(shop.batch.counted("audited")? > before, "audit mode counts nothing");
        shop.cluster.publish("group-batch.yaml", &group("batch", &[("app", "batch")], ""))?;
        shop.cluster.gateway.remove("batch-out.yaml")?;
        wait_for("the end of the refusal", PATIENCE, || matches!(pings(&shop.batch.host, web, 56), Ok(true)))?;
        Ok(())
    });
}

#[test]
fn a_pod_that_is_gone_is_unknown() {
    SHOP.test(|shop| {
        let pod = shop.cluster.pod("job", 9)?;
        shop.cluster.publish("db-clients.yaml", &db_clients(&["api", "job"]))?;
        reaches(shop, &pod, true)?;
        shop.cluster.gateway.remove("pod-job.yaml")?;
        reaches(shop, &pod, false)?;
        shop.cluster.gateway.apply("db-clients.yaml", &db_clients(&["api"]))?;
        shop.cluster.settle()
    });
}
