//! What the source check lets through, and what it is not alone in refusing. Spoofed sources are rows 9 to 13 of
//! `threats_identity.rs`.

use anyhow::ensure;
use e2e::forgery::{COUNT, Forgery, families, identity_of, refused, sink};
use e2e::shared::Shared;
use e2e::shop::Shop;
use e2e::traffic::udp::SinkReport;

static SHOP: Shared<Shop> = Shared::new();

#[test]
fn what_the_transit_node_may_send_is_delivered() {
    SHOP.test(|shop| {
        let mut sink = sink(shop)?;
        for [db, _, api, _] in families(shop)? {
            let (vni, flow) = (identity_of(shop, api)?, if db.is_ipv4() { 4 } else { 6 });
            let from = shop.cluster.node.host();
            Forgery { from, vni, source: api, destination: db, flow, inner: "udp", more: "" }.send(shop)?;
        }
        let received: SinkReport = sink.finish()?;
        let counts = (received.flow(4).received, received.flow(6).received);
        ensure!(
            counts == (COUNT, COUNT),
            "the tool forges badly, so its other uses prove nothing: {received:?}"
        );
        Ok(())
    });
}

#[test]
fn a_segment_of_no_connection_is_refused() {
    SHOP.test(|shop| {
        for [db, _, api, _] in families(shop)? {
            let (from, vni) = (shop.cluster.node.host(), identity_of(shop, api)?);
            let forgery =
                Forgery { from, vni, source: api, destination: db, flow: 7, inner: "ack", more: "" };
            refused(shop, &forgery, "no_flow")?;
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_packet_for_somebody_else_is_refused() {
    SHOP.test(|shop| {
        for [_, batch, api, _] in families(shop)? {
            let (from, vni) = (shop.cluster.node.host(), identity_of(shop, api)?);
            let forgery =
                Forgery { from, vni, source: api, destination: batch, flow: 7, inner: "udp", more: "" };
            refused(shop, &forgery, "not_for_us")?;
        }
        Ok(())
    });
}
