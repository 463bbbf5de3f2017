//! The fixtures themselves: machines reach each other, pods reach hosts, the tools count what they claim to count,
//! and nothing is left behind.

use std::time::Duration;

use e2e::net::Net;
use e2e::traffic::ping::PingReport;
use e2e::traffic::sniff::SniffReport;
use e2e::traffic::tcp::{EchoReport, StreamReport};
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_pod_and_a_host_talk_in_both_families_and_nothing_is_left() {
    let net = Net::try_new().unwrap();
    let node = net.node("node", 1).unwrap();
    let pod = node.pod("pod", 2).unwrap();
    let host = net.host("host").unwrap();
    let folder = net.folder().to_owned();
    let name = host.namespace().name().to_owned();
    host.namespace().ip(&format!("route add 10.100.1.0/24 via {}", node.v4())).unwrap();
    host.namespace().ip(&format!("route add fd00:100:1::/64 via {}", node.v6())).unwrap();

    let mut sink = host.traffic("sink", "udp-sink --port 9000 --echo").unwrap();
    let echo = host.traffic("echo", "tcp-echo --port 9001").unwrap();
    let web = host.traffic("web", "serve-http --port 80 --name host").unwrap();
    let mut sniff = net_sniff(&net);
    wait_for("servers", LIMIT, || {
        sink.report::<SinkReport>().is_ok_and(|report| report.listening)
            && echo.report::<EchoReport>().is_ok_and(|report| report.listening)
            && !web.stdout().is_empty()
    })
    .unwrap();

    for (flow, address) in [(4, host.v4().into()), (6, std::net::IpAddr::from(host.v6()))] {
        let to = std::net::SocketAddr::new(address, 9000);
        let mut send = pod.traffic("send", &format!("udp-send --to {to} --flow {flow} --count 50")).unwrap();
        assert!(send.wait(LIMIT).unwrap().success(), "{}", send.output());
        let sent: SendReport = send.report().unwrap();
        assert_eq!((sent.sent, sent.echoed), (50, 50), "{}", send.output());

        let to = std::net::SocketAddr::new(address, 9001);
        let mut stream = pod.traffic("stream", &format!("tcp-stream --to {to}")).unwrap();
        wait_for("records", LIMIT, || stream.report::<StreamReport>().is_ok_and(|r| r.echoed > 20)).unwrap();
        let streamed: StreamReport = stream.finish().unwrap();
        assert_eq!(streamed.sent, streamed.echoed);
        assert_eq!(streamed.error, None);

        let to = std::net::SocketAddr::new(address, 80);
        let got = pod.run(&["traffic", "get", &format!("http://{to}/")]).unwrap().ok().unwrap();
        assert_eq!(got.stdout, format!("hello from host, {}\n", own(&pod, address)));

        let answer = pod.run(&["traffic", "ping", &address.to_string()]).unwrap().json().unwrap();
        let ping: PingReport = serde_json::from_value(answer).unwrap();
        assert_eq!((ping.sent, ping.received), (3, 3));
    }
    let sunk: SinkReport = sink.finish().unwrap();
    assert_eq!((sunk.flow(4).received, sunk.flow(6).received, sunk.flow(5).received), (50, 50, 0));
    let seen: SniffReport = sniff.finish().unwrap();
    assert!(seen.packets >= 50, "{seen:?}");

    drop((sink, echo, web, sniff, host, pod, node, net));
    assert!(!folder.exists());
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}

fn net_sniff(net: &Net) -> e2e::process::Process {
    let mut command = net.underlay().command(e2e::binaries::Binary::Traffic.path().unwrap());
    command.args(["sniff", "--port", "9000"]);
    e2e::process::Process::start("sniff", &mut command, &net.logs()).unwrap()
}

fn own(host: &e2e::host::Host, like: std::net::IpAddr) -> std::net::IpAddr {
    if like.is_ipv4() { host.v4().into() } else { host.v6().into() }
}
