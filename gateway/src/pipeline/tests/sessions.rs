//! What agents bring to a session: addresses that are not theirs, numbers that another gateway gave; and states larger
//! than any message.

use proto::parts::Parts;

use proto::v1::Generation;

use super::*;

fn from(gateway: &Gateway, host: &Host, remote: &str) {
    let mut peers = gateway.peers.lock().unwrap();
    peers.get_mut(&host.header).unwrap().remote = remote.parse().unwrap();
}

fn report(addresses: &[&str]) -> HostReport {
    let wire = |text: &&str| proto::convert::address_to_wire(text.parse().unwrap());
    HostReport { underlay_addresses: addresses.iter().map(wire).collect(), ..HostReport::default() }
}

fn reporting(addresses: &[&str]) -> Hello {
    Hello { report: Some(report(addresses)), ..hello("one") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_from_elsewhere_is_refused_and_shown() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let underlay = || gateway.store.workload(&host.name).unwrap().underlay.clone();
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    from(&gateway, &host, "198.51.100.7:1");
    let mut stream = gateway.connect(&host, reporting(&["192.0.2.5", "fd00::5"])).await.unwrap();
    stream.follow().await;
    assert_eq!(underlay(), addresses(&["192.0.2.1"]), "what it reported before counts");
    let condition = gateway.mesh.workload(&host.name).unwrap().conditions["ReportRefused"].clone();
    assert!(
        condition.message.contains("198.51.100.7") && condition.message.contains("192.0.2.5"),
        "{condition:?}"
    );
    // From any one of its addresses all of them are believed.
    from(&gateway, &host, "[fd00::5]:1");
    let mut stream = gateway.connect(&host, reporting(&["192.0.2.5", "fd00::5"])).await.unwrap();
    assert_eq!(underlay(), addresses(&["192.0.2.5", "fd00::5"]));
    assert!(!gateway.mesh.workload(&host.name).unwrap().conditions.contains_key("ReportRefused"));
    stream.follow().await;
    // A host that moved comes again from where it is.
    stream.say(agent_message::Message::Report(report(&["192.0.2.9"]))).await;
    let status = loop {
        match stream.next().await {
            Ok(_update) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(underlay(), addresses(&["192.0.2.5", "fd00::5"]));
    from(&gateway, &host, "192.0.2.9:1");
    gateway.connect(&host, reporting(&["192.0.2.9"])).await.unwrap();
    assert_eq!(underlay(), addresses(&["192.0.2.9"]));
}

/// A store that was restored from a backup gives numbers again that agents know for other states.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_number_of_another_life_ends_with_the_whole_state() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("policy.yaml", policy("80"))]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    let first = stream.follow().await.generation.unwrap();
    eventually("it counts", || gateway.mesh.workload(&host.name).unwrap().acked_generation == first.counter)
        .await;
    let other_life = |generation| Hello { applied: Some(generation), digest: vec![7; 32], ..hello("one") };

    // The latest number, for another state: all are renumbered, and the agent is given everything.
    let mut same = gateway.connect(&host, other_life(first)).await.unwrap();
    let whole = same.follow().await;
    let second = whole.generation.unwrap();
    assert_eq!(whole.base, None);
    assert!(second.counter > first.counter, "{second:?} after {first:?}");
    assert_eq!(same.node.digest(), stream.node.digest());

    // A newer number: nothing, until the gateway has passed it.
    let newer = Generation { counter: second.counter + 1, ..second };
    let mut behind = gateway.connect(&host, other_life(newer)).await.unwrap();
    assert!(matches!(behind.next().await.unwrap(), Message::Behind(_)));
    let generation = || gateway.mesh.summary().generation;
    for (port, passed) in [("81", newer.counter), ("82", newer.counter + 1)] {
        gateway.save("policy.yaml", &policy(port));
        eventually("it is published", || generation() >= passed).await;
    }
    // The log has a step from that very number, and it does not count.
    let mut passed = gateway.connect(&host, other_life(newer)).await.unwrap();
    let whole = passed.follow().await;
    assert_eq!(whole.base, None);
    assert!(format!("{:?}", passed.node.state().unwrap().policy).contains("82"));

    // What this gateway told is gone on from as ever.
    let told = whole.generation.unwrap();
    eventually("it counts", || gateway.mesh.workload(&host.name).unwrap().acked_generation == told.counter)
        .await;
    gateway.save("policy.yaml", &policy("83"));
    eventually("it is published", || generation() > told.counter).await;
    let again = Hello { applied: Some(told), digest: passed.node.digest().to_vec(), ..hello("one") };
    let mut again = gateway.connect(&host, again).await.unwrap();
    let Message::Update(delta) = again.next().await.unwrap() else { panic!("an update") };
    assert_eq!(delta.base, Some(told));
}

/// A policy of that many rules, each of which carries its name.
const RULES: usize = 35_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_larger_than_any_message_reaches_the_agent() {
    let rules = "{},".repeat(RULES);
    let large = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {}, namespace: shop}}, \
         spec: {{podSelector: {{}}, ingress: [{rules}]}}}}\n",
        "p".repeat(253)
    );
    let gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("large.yaml", large)]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    let (mut parts, mut bytes) = (Parts::default(), 0);
    loop {
        let Message::Update(update) = stream.next().await.unwrap() else { panic!("an update") };
        bytes += update.parts.iter().map(bytes::Bytes::len).sum::<usize>();
        parts.add(update.parts, update.continues);
        if update.last {
            break;
        }
    }
    assert!(bytes > proto::MAX_MESSAGE_BYTES, "{bytes} bytes");
    stream.node.apply(&parts.finish().unwrap()).unwrap();
    assert_eq!(stream.node.state().unwrap().policy.ingress.rules.len(), RULES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_during_a_relabel_goes_on_with_its_phase() {
    let mut gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("pod.yaml", pod("web"))]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    stream.follow().await;
    let (before, _, _) = stream.on_wire("10.1.0.1");
    gateway.save("pod.yaml", &pod("web2"));
    let unconfirmed = stream.update().await;
    let (after, previous, mark) = stream.on_wire("10.1.0.1");
    assert_eq!((previous, mark), (Some(before), before));
    for (previous, mark) in [(before, before), (before, after)] {
        let (store, peers) = (gateway.store.clone(), Arc::clone(&gateway.peers));
        let other = tempfile::tempdir().unwrap();
        gateway.shutdown.trigger();
        fs::rename(gateway.folder.path().join("manifests"), other.path().join("manifests")).unwrap();
        gateway = Gateway::start_in(other, store).await;
        gateway.peers.lock().unwrap().extend(std::mem::take(&mut *peers.lock().unwrap()));
        stream = gateway.connect(&host, hello("one")).await.unwrap();
        stream.follow().await;
        assert_eq!(stream.on_wire("10.1.0.1"), (after, Some(previous), mark), "after {unconfirmed:?}");
        // The next phase is not confirmed.
        stream.update().await;
    }
    assert_eq!(stream.on_wire("10.1.0.1"), (after, None, after));
    eventually("nothing is under way", || gateway.store.relabels().unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_no_gateway_runs_is_told_in_phases_that_all_who_were_there_confirm() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("pod.yaml", pod("web"))]).await;
    let hosts = [("db-1", "192.0.2.1"), ("db-2", "192.0.2.2")].map(|(name, at)| gateway.join(name, at));
    let mut stream = gateway.connect(&hosts[0], hello("one")).await.unwrap();
    stream.follow().await;
    let (before, _, _) = stream.on_wire("10.1.0.1");
    gateway.shutdown.trigger();
    let other = tempfile::tempdir().unwrap();
    fs::rename(gateway.folder.path().join("manifests"), other.path().join("manifests")).unwrap();
    fs::write(other.path().join("manifests/pod.yaml"), pod("web2")).unwrap();
    let (store, peers) = (gateway.store.clone(), Arc::clone(&gateway.peers));
    let gateway = Gateway::start_in(other, store).await;
    gateway.peers.lock().unwrap().extend(std::mem::take(&mut *peers.lock().unwrap()));
    let mut streams = Vec::new();
    for (host, machine) in hosts.iter().zip(["one", "two"]) {
        let mut stream = gateway.connect(host, hello(machine)).await.unwrap();
        stream.follow().await;
        let (after, previous, mark) = stream.on_wire("10.1.0.1");
        assert_ne!(after, before);
        assert_eq!((previous, mark), (Some(before), before), "before {} has confirmed", host.name);
        streams.push(stream);
    }
    for mut stream in streams {
        stream.follow().await;
        let (after, previous, mark) = stream.on_wire("10.1.0.1");
        assert_eq!((previous, mark), (Some(before), after));
    }
}

/// After a restored backup an agent may have other states under two numbers. One that goes on would make every agent
/// take generation after generation.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_state_under_every_number_is_not_listened_to() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    let mut counters = Vec::new();
    for _ in 0..3 {
        let generation = stream.update().await.generation;
        counters.extend(generation.map(|generation| generation.counter));
        let reason = "another state".to_owned();
        stream.say(agent_message::Message::Reject(Reject { generation, reason, contradicts: true })).await;
    }
    assert!(counters.is_sorted_by(|a, b| a < b), "each is told under the next number: {counters:?}");
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
}
