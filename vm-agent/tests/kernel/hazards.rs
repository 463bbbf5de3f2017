//! What others do to a host, and what a gateway may ask of it by mistake.

use std::os::fd::AsRawFd as _;

use datapath::abi::Hook;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::*;

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

#[test]
fn who_works_through_the_mesh_does_not_hold_back_policy() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let server = tokio::net::TcpListener::bind("10.244.240.7:22").await.unwrap();
        let _client = tokio::net::TcpStream::connect("10.244.240.7:22").await.unwrap();
        let _session = server.accept().await.unwrap();
        let mut next = state();
        next.settings.mode = Mode::Audit;
        host.targets.send_replace(Some(target(2, next)));
        host.applied(2).await;
    });
}

#[test]
fn an_address_that_would_cut_the_host_off_is_refused() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        for (counter, address) in [(2, "192.0.2.1"), (3, "192.0.2.2"), (4, "127.0.0.53")] {
            let mut next = state();
            next.settings.addresses = vec![address.parse().unwrap()];
            host.targets.send_replace(Some(target(counter, next)));
            let reason = host.refused(counter).await;
            assert!(reason.contains(address), "{reason}");
        }
        assert!(!ip("address show dev ogr0").contains("192.0.2."));
    });
}

#[test]
fn an_address_outside_what_the_administrator_allows_is_refused() {
    isolated(|| async {
        let allowed = vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()];
        let bounded = KernelConfig { allowed_cidrs: Some(allowed), ..config() };
        let host = Running::start(bounded, target(1, state())).await;
        host.applied(1).await;
        let mut next = state();
        next.settings.addresses = vec!["203.0.113.8".parse().unwrap()];
        host.targets.send_replace(Some(target(2, next)));
        let reason = host.refused(2).await;
        assert!(reason.contains("203.0.113.8") && reason.contains("allowedCIDRs"), "{reason}");
    });
}

#[test]
fn a_prefix_is_routed_once_the_host_needs_it_no_longer() {
    isolated(|| async {
        ip("route add 10.244.7.0/24 via 192.0.2.1");
        let host = Running::start(config(), target(1, state())).await;
        let reason = host.troubled(1).await;
        assert!(reason.contains("10.244.7.0/24"), "{reason}");
        ip("route del 10.244.7.0/24 via 192.0.2.1");
        host.wait("a whole network", |applied| applied.trouble.is_none()).await;
        assert!(routes().contains("10.244.0.0/16 dev ogr0"), "{}", routes());
    });
}

#[test]
fn meshes_leave_each_other_alone() {
    isolated(|| async {
        let first = Running::start(config(), target(1, state())).await;
        first.applied(1).await;
        let mut other = state();
        other.settings.addresses = vec!["10.245.0.7".parse().unwrap()];
        other.settings.prefixes = vec!["10.245.0.0/16".parse().unwrap()];
        other.settings.tunnel_port = 8480;
        let second = KernelConfig { mesh: "second".to_owned(), device: "ogr1".to_owned(), ..config() };
        let second = Running::start(second, target(1, other)).await;
        second.applied(1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = routes();
        for prefix in ["10.244.0.0/16", "10.245.0.0/16", "fd00:244::/64"] {
            assert!(before.contains(&format!("unreachable {prefix}")), "{prefix} in {before}");
        }
        let removed = second.kernel.leave().await.unwrap();
        assert!(!removed.iter().any(|line| line.contains("10.244.")), "{removed:?}");
        let after = routes();
        assert!(after.contains("unreachable 10.244.0.0/16") && !after.contains("10.245."), "{after}");
        assert!(std::fs::exists(format!("{BPFFS}/outrigger/default")).unwrap());
    });
}

#[test]
fn a_port_that_is_taken_leaves_the_device_as_it_is() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let device = ip("link show dev ogr0");
        let taken = std::net::UdpSocket::bind("0.0.0.0:9999").unwrap();
        let mut next = state();
        next.settings.tunnel_port = 9999;
        host.targets.send_replace(Some(target(2, next)));
        let reason = host.troubled(2).await;
        assert!(reason.contains("9999"), "{reason}");
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(ip("link show dev ogr0"), device, "the device was replaced");
        }
        drop(taken);
        host.wait("the device at its port", |applied| applied.trouble.is_none()).await;
        host.status("the port", |status| status.device.as_ref().is_some_and(|device| device.port == 9999))
            .await;
    });
}

#[test]
fn a_small_underlay_carries_the_family_that_fits() {
    isolated(|| async {
        let host = Running::start(KernelConfig { mtu: Some(1300), ..config() }, target(1, state())).await;
        host.applied(1).await;
        host.status("a warning", |status| status.warnings.iter().any(|line| line.contains("1250"))).await;
        assert!(routes().contains("unreachable fd00:244::/64"), "{}", routes());
        assert_eq!(
            host.kernel.status().borrow().device.clone().unwrap().addresses,
            [IpAddr::from([10, 244, 240, 7])]
        );
    });
}

#[test]
fn a_device_without_addresses_lets_no_bare_packet_in() {
    isolated(|| async {
        ip("link add nic1 type veth peer name far1");
        sysctl("ipv6/conf/nic1/disable_ipv6", "1");
        for device in ["all", "nic1"] {
            sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
        }
        ip("link set nic1 up");
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let listener = tokio::net::UdpSocket::bind("10.244.240.7:7777").await.unwrap();
        let lines = [
            "link set far1 up".to_owned(),
            "address add 192.0.2.1/24 dev far1".to_owned(),
            "route add 10.244.240.7/32 dev far1".to_owned(),
            format!("neighbour add 10.244.240.7 dev far1 lladdr {}", mac("nic1")),
        ];
        neighbour("far1", lines.to_vec(), "192.0.2.1:0", vec!["10.244.240.7:7777"]);
        let received = timeout(Duration::from_millis(500), listener.recv(&mut [0; 16])).await;
        assert!(received.is_err(), "a bare packet reached the mesh address");
    });
}

#[test]
fn a_pod_behind_a_bridge_does_not_speak_as_its_transit_node() {
    isolated(|| async {
        for line in [
            "link add cni0 type bridge",
            "link add veth1 type veth peer name pod",
            "link set veth1 master cni0",
            "link set veth1 up",
            "link set cni0 up",
            "address add fd00:aa::1/64 dev cni0 nodad",
        ] {
            ip(line);
        }
        sysctl("ipv6/conf/all/forwarding", "1");
        let mut transit = state();
        transit.settings.role = Role::Transit;
        transit
            .endpoints
            .insert("fd00:244::7".parse().unwrap(), endpoint(6, &["192.0.2.2"], EndpointKind::Transit));
        transit
            .endpoints
            .insert("fd00:244::99".parse().unwrap(), endpoint(4001, &["192.0.2.9"], EndpointKind::Workload));
        let host = Running::start(config(), target(1, transit)).await;
        host.applied(1).await;
        let lines = [
            "link set pod up".to_owned(),
            "address add fd00:244::7/128 dev pod nodad".to_owned(),
            "route add fd00:244::99/128 dev pod".to_owned(),
            format!("neighbour add fd00:244::99 dev pod lladdr {}", mac("cni0")),
        ];
        neighbour("pod", lines.to_vec(), "[fd00:244::7]:0", vec!["[fd00:244::99]:53"]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let counters = host.kernel.counters().unwrap();
        let told = |reason| counters.iter().any(|counter: &Counter| counter.reason == reason);
        assert!(told(Reason::GuardSource) && !told(Reason::Forwarded), "{counters:?}");
    });
}

#[test]
fn pins_name_the_programs_that_run_or_none() {
    isolated(|| async {
        let mesh = format!("{BPFFS}/outrigger/default");
        let programs = || {
            let pin = |hook: &Hook| format!("{mesh}/v{}/{}", datapath::abi::VERSION, hook.program());
            Hook::ALL.iter().filter(|hook| std::fs::exists(pin(hook)).unwrap()).count()
        };
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        host.status("the device", |status| status.device.is_some()).await;
        assert_eq!(programs(), Hook::ALL.len());
        host.kill().await;

        // Other programs are loaded, and whoever did that dies before it publishes.
        std::fs::remove_file(format!("{mesh}/v{}/mesh_ingress", datapath::abi::VERSION)).unwrap();
        let (_targets, receiver) = watch::channel(None);
        drop(Kernel::start(config(), receiver).await.unwrap());
        assert_eq!(programs(), 0, "what is pinned may not be what runs");

        let host = Running::start(config(), target(2, state())).await;
        assert_eq!(host.applied(2).await.epoch, 2, "the programs are switched");
        host.status("the device", |status| status.device.is_some()).await;
        assert_eq!(programs(), Hook::ALL.len());
        host.kill().await;

        // What an upgrade left behind that died before it could clear it.
        std::fs::create_dir(format!("{mesh}/v0")).unwrap();
        let host = Running::start(config(), target(3, state())).await;
        assert_eq!(host.applied(3).await.epoch, 2);
        assert!(!std::fs::exists(format!("{mesh}/v0")).unwrap());
    });
}

/// An Ethernet frame for `mac` with a datagram to the mesh address, behind so many tags that carry a priority only.
fn tagged(mac: &str, tags: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend([0x81, 0, 0, 0].repeat(tags));
    frame.extend([0x08, 0]);
    // 192.0.2.1 to 10.244.240.7, with its checksum.
    frame.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0xbd, 0xcf, 192, 0, 2, 1, 10, 244, 240, 7]);
    // 1234 to 7777, 12 bytes, no checksum.
    frame.extend([0x04, 0xd2, 0x1e, 0x61, 0, 12, 0, 0]);
    frame.extend(*b"bare");
    frame
}

/// Sends a frame by the device `far` of this thread's namespace.
fn send(frame: &[u8]) {
    let far = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|device| device.interface_name == "far")
        .find_map(|device| device.address?.as_link_addr().copied());
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
    let sent = sendto(socket.as_raw_fd(), frame, &far.unwrap(), MsgFlags::empty()).unwrap();
    assert_eq!(sent, frame.len());
}

/// Threat row 29.
#[test]
fn priority_tags_take_no_bare_packet_past_the_guard() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        host.status("the device", |status| status.device.is_some()).await;
        let listener = tokio::net::UdpSocket::bind("10.244.240.7:7777").await.unwrap();
        let (here, there) = std::sync::mpsc::channel();
        let (ready, go) = std::sync::mpsc::channel::<()>();
        let mac = mac("eth0");
        let machine = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            here.send(nix::unistd::gettid()).unwrap();
            go.recv().unwrap();
            ip("link set far up");
            for tags in 0..4 {
                send(&tagged(&mac, tags));
            }
        });
        ip(&format!("link set far netns {}", there.recv().unwrap()));
        ready.send(()).unwrap();
        machine.join().unwrap();
        let dropped = || -> u64 {
            let guards = [Reason::GuardDestination, Reason::UnknownEtherType];
            let counters = host.kernel.counters().unwrap();
            counters
                .iter()
                .filter(|counter| guards.contains(&counter.reason))
                .map(|counter| counter.packets)
                .sum()
        };
        timeout(Duration::from_secs(5), async {
            while dropped() < 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
        assert!(listener.try_recv(&mut [0; 16]).is_err(), "a bare packet reached the mesh address");
    });
}
