//! Policy does not wait for the network: what netlink or the host forbids is left out alone.

use super::*;

fn closed_egress(mut state: NodeState) -> NodeState {
    let by = vec!["NetworkPolicy/shop/closed".to_owned()];
    let closed = DirectionPolicy { default: DefaultVerdict::Deny { by }, rules: Vec::new() };
    state.policy = Arc::new(Policy { egress: closed, ..Policy::clone(&state.policy) });
    state
}

/// What the kernel's own tables say to a first packet to a pod.
fn outgoing(host: &Running) -> Reason {
    let query = TraceQuery {
        direction: Direction::Egress,
        remote: "10.244.1.5".parse().unwrap(),
        protocol: 6,
        source_port: 40_000,
        destination_port: 5432,
        nic: false,
    };
    host.kernel.trace(&query).unwrap().reason
}

#[test]
fn a_route_that_is_refused_does_not_hold_back_policy() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        assert_eq!(outgoing(&host), Reason::NewAllowed);
        // Another route with destination and metric of the one that is asked for.
        ip("route add 10.250.0.0/16 dev ogr0 proto static");
        let mut next = closed_egress(state());
        next.settings.prefixes.push("10.250.0.0/16".parse().unwrap());
        host.targets.send_replace(Some(target(2, next)));
        let trouble = host.troubled(2).await;
        assert!(trouble.contains("10.250.0.0/16") && trouble.contains("there already"), "{trouble}");
        assert_eq!(outgoing(&host), Reason::PolicyDenied, "the new policy is not in force");
        ip("route del 10.250.0.0/16 dev ogr0 proto static");
        host.wait("the route", |applied| applied.trouble.is_none()).await;
        assert!(routes().contains("10.250.0.0/16 dev ogr0"), "{}", routes());
    });
}

#[test]
fn a_device_that_is_taken_away_does_not_hold_back_policy() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        host.status("the device", |status| status.device.is_some()).await;
        host.kill().await;
        ip("link delete ogr0");
        ip("link add ogr0 type veth peer name other");
        let host = Running::start(config(), target(2, closed_egress(state()))).await;
        let trouble = host.troubled(2).await;
        assert!(trouble.contains("ogr0"), "{trouble}");
        assert_eq!(outgoing(&host), Reason::PolicyDenied);
        ip("link delete ogr0");
        host.wait("the device", |applied| applied.trouble.is_none()).await;
    });
}

/// The resolver file, as this thread sees it.
struct Resolver(tempfile::NamedTempFile);

impl Resolver {
    fn of(address: &str) -> Self {
        let none: Option<&str> = None;
        let file = tempfile::NamedTempFile::new().unwrap();
        mount(Some(file.path()), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).unwrap();
        let resolver = Self(file);
        resolver.set(address);
        resolver
    }

    fn set(&self, address: &str) {
        std::fs::write(&self.0, format!("nameserver {address}\n")).unwrap();
    }
}

#[test]
fn a_nameserver_that_moves_into_the_mesh_does_not_hold_back_policy() {
    isolated(|| async {
        let resolver = Resolver::of("203.0.113.53");
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        resolver.set("10.244.0.10");
        let mut next = closed_egress(state());
        next.settings.prefixes.push("10.250.0.0/16".parse().unwrap());
        host.targets.send_replace(Some(target(2, next)));
        let applied = host.applied(2).await;
        assert_eq!(applied.trouble, None, "what is in force stays");
        assert_eq!(outgoing(&host), Reason::PolicyDenied);
        let routes = routes();
        assert!(routes.contains("10.244.0.0/16 dev ogr0") && routes.contains("10.250.0.0/16"), "{routes}");
        let warned = |status: &KernelStatus| status.warnings.iter().any(|line| line.contains("10.244.0.10"));
        host.status("a warning", warned).await;
    });
}

#[test]
fn a_new_prefix_with_a_nameserver_in_it_is_left_out_alone() {
    isolated(|| async {
        let resolver = Resolver::of("10.250.0.10");
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let mut next = closed_egress(state());
        next.settings.prefixes.push("10.250.0.0/16".parse().unwrap());
        host.targets.send_replace(Some(target(2, next)));
        let trouble = host.troubled(2).await;
        assert!(trouble.contains("10.250.0.0/16") && trouble.contains("10.250.0.10"), "{trouble}");
        assert_eq!(outgoing(&host), Reason::PolicyDenied);
        assert!(!routes().contains("10.250."), "{}", routes());
        resolver.set("203.0.113.53");
        host.wait("the prefix", |applied| applied.trouble.is_none()).await;
        assert!(routes().contains("10.250.0.0/16 dev ogr0"), "{}", routes());
    });
}

#[test]
fn a_prefix_that_the_underlay_moves_into_is_withdrawn() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        ip("address add 10.244.3.9/24 dev eth0");
        let trouble = host.troubled(1).await;
        assert!(trouble.contains("10.244.0.0/16"), "{trouble}");
        let left = routes();
        assert!(!left.contains("10.244.0.0/16 dev ogr0"), "{left}");
        assert!(left.contains("unreachable 10.244.0.0/16"), "nothing of the mesh goes out in clear: {left}");
        host.status("one guarded prefix", |status| status.entries.get("PREFIXES") == Some(&1)).await;
        ip("address del 10.244.3.9/24 dev eth0");
        host.wait("the prefix", |applied| applied.trouble.is_none()).await;
        assert!(routes().contains("10.244.0.0/16 dev ogr0"), "{}", routes());
    });
}

/// A host with a routing daemon: what it does is looked at from time to time, not each time.
#[test]
fn many_changes_of_routes_cost_a_tenth_of_the_time() {
    isolated(|| async {
        let config = KernelConfig { verify_every: Duration::from_mins(10), ..config() };
        let host = Running::start(config, target(1, state())).await;
        host.applied(1).await;
        host.status("the device", |status| status.device.is_some()).await;
        let looking = || (host.kernel.status().borrow().looks, host.kernel.status().borrow().looking);
        let (before, began) = (looking(), std::time::Instant::now());
        for _ in 0..100 {
            let lines = (0..50).flat_map(|last| {
                let route = format!("10.9.{last}.0/24 via 192.0.2.1");
                [format!("route add {route}"), format!("route del {route}")]
            });
            let lines: Vec<String> = lines.collect();
            tokio::task::spawn_blocking(move || batch(&lines)).await.unwrap();
        }
        let (after, took) = (looking(), began.elapsed());
        let (looks, busy) = (after.0 - before.0, after.1.saturating_sub(before.1));
        assert!(looks > 0, "nothing was looked at");
        // One look may have just ended, with its rest to come.
        let one = busy / u32::try_from(looks).unwrap();
        assert!(busy <= took / 10 + one * 3, "{looks} looks, {busy:?} of {took:?}");
        // What changes afterwards is seen all the same.
        host.loses_its_device().await;
    });
}

fn batch(lines: &[String]) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.join("\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_second_agent_for_the_same_mesh_is_refused_and_the_first_is_named() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let (_targets, receiver) = watch::channel(None);
        let error = Kernel::start(config(), receiver).await.err().unwrap().to_string();
        let own = format!("process {}", std::process::id());
        assert!(error.contains("`mesh`") && error.contains(&own), "{error}");
        assert!(remove(&config()).await.is_err(), "another agent's mesh was removed");
        assert!(ip("link show dev ogr0").contains("ogr0"));
    });
}

#[test]
fn a_leave_that_fails_can_be_tried_again() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let obstacle = format!("{BPFFS}/outrigger/default/stable/obstacle");
        std::fs::create_dir(&obstacle).unwrap();
        let error = host.kernel.leave().await.unwrap_err().to_string();
        assert!(error.contains("obstacle"), "{error}");
        std::fs::remove_dir(&obstacle).unwrap();
        host.kernel.leave().await.unwrap();
        assert!(!std::fs::exists(format!("{BPFFS}/outrigger/default")).unwrap());
        assert!(matches!(host.kernel.leave().await, Err(KernelError::Stopped)), "the owner has ended");
    });
}
