//! The fixtures themselves: machines reach each other, pods reach hosts, the tools count what they claim to count,
//! and nothing is left behind.

use std::time::Duration;

use anyhow::Result;
use e2e::net::Net;
use e2e::process::Process;
use e2e::traffic::ping::PingReport;
use e2e::traffic::sniff::SniffReport;
use e2e::traffic::tcp::{EchoReport, StreamReport};
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_pod_and_a_host_talk_in_both_families_and_nothing_is_left() -> Result<()> {
    let net = Net::try_new()?;
    let node = net.node("node", 1)?;
    let pod = node.pod("pod", 2)?;
    let host = net.host("host")?;
    let folder = net.folder().to_owned();
    let name = host.namespace().name().to_owned();
    host.namespace().ip(&format!("route add 10.100.1.0/24 via {}", node.v4()))?;
    host.namespace().ip(&format!("route add fd00:100:1::/64 via {}", node.v6()))?;

    let mut sink = host.traffic("sink", "udp-sink --port 9000 --echo")?;
    let echo = host.traffic("echo", "tcp-echo --port 9001")?;
    let web = host.traffic("web", "serve-http --port 80 --name host")?;
    let mut sniff = net_sniff(&net)?;
    wait_for("servers", LIMIT, || {
        sink.report::<SinkReport>().is_ok_and(|report| report.listening)
            && echo.report::<EchoReport>().is_ok_and(|report| report.listening)
            && !web.stdout().is_empty()
    })?;

    for (flow, address) in [(4, host.v4().into()), (6, std::net::IpAddr::from(host.v6()))] {
        let to = std::net::SocketAddr::new(address, 9000);
        let mut sender = pod.traffic("send", &format!("udp-send --to {to} --flow {flow} --count 50"))?;
        assert!(sender.wait(LIMIT)?.success(), "{}", sender.output());
        let sent: SendReport = sender.report()?;
        assert_eq!((sent.sent, sent.echoed), (50, 50), "{}", sender.output());

        let to = std::net::SocketAddr::new(address, 9001);
        let mut stream = pod.traffic("stream", &format!("tcp-stream --to {to}"))?;
        wait_for("records", LIMIT, || stream.report::<StreamReport>().is_ok_and(|r| r.echoed > 20))?;
        let streamed: StreamReport = stream.finish()?;
        assert_eq!(streamed.sent, streamed.echoed);
        assert_eq!(streamed.error, None);

        let to = std::net::SocketAddr::new(address, 80);
        let got = pod.run(&["traffic", "get", &format!("http://{to}/")])?.ok()?;
        assert_eq!(got.stdout, format!("hello from host, {}\n", own(&pod, address)));

        let answer = pod.run(&["traffic", "ping", &address.to_string()])?.json()?;
        let ping: PingReport = serde_json::from_value(answer)?;
        assert_eq!((ping.sent, ping.received), (3, 3));
    }
    let received: SinkReport = sink.finish()?;
    assert_eq!(
        (received.flow(4).received, received.flow(6).received, received.flow(5).received),
        (50, 50, 0)
    );
    let seen: SniffReport = sniff.finish()?;
    assert!(seen.packets >= 50, "{seen:?}");

    drop((sink, echo, web, sniff, host, pod, node, net));
    assert!(!folder.exists());
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
    Ok(())
}

fn net_sniff(net: &Net) -> Result<Process> {
    let mut command = net.underlay().command(e2e::binaries::Binary::Traffic.path()?);
    command.args(["sniff", "--port", "9000"]);
    Process::start("sniff", &mut command, &net.logs())
}

fn own(host: &e2e::host::Host, like: std::net::IpAddr) -> std::net::IpAddr {
    if like.is_ipv4() { host.v4().into() } else { host.v6().into() }
}
