//! Policies about Services, groups of blocks and administrators' tiers, from manifests to rules.

use policy::state::{Peers, Policy, RuleAction};

use super::*;

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {SPEC}}\n---\n";

fn slice(name: &str, service: &str, addresses: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}, \
         endpoints: [{{addresses: {addresses}, conditions: {{ready: true}}}}], ports: [{{port: 80}}]}}\n---\n"
    )
}

/// A host of the group `db` and a policy whose egress goes to the Service `api`.
fn to_service() -> Fixture {
    let mut f = Fixture::new();
    f.put(&group("db", "{app: db}"));
    f.workloads(&[member("db-1", "10.9.0.1", &[])]);
    f.put(
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: db, namespace: shop}, spec: \
         {endpointSelector: {}, egress: [{toServices: [{k8sService: {serviceName: api, namespace: shop}}]}]}}",
    );
    f
}

fn policy_of(compiled: &Compiled) -> &Policy {
    let endpoint = &compiled.state.endpoints[&ip("10.9.0.1")];
    &compiled.state.policies[&endpoint.identity]
}

fn peers(compiled: &Compiled) -> (usize, Vec<String>) {
    let rule = &policy_of(compiled).egress.rules[0];
    let Peers::Only { identities, blocks } = &rule.peers else { panic!("every peer") };
    (identities.len(), blocks.iter().map(|block| block.cidr.to_string()).collect())
}

#[test]
fn a_service_is_the_pods_of_its_selector() {
    let mut f = to_service();
    f.put(&pod("a", "{app: api}", "n1", "10.1.0.1"));
    f.put(&pod("b", "{app: web}", "n1", "10.1.0.2"));
    let compiled = f.publish();
    assert_eq!(peers(&compiled), (0, vec![]));
    assert!(
        compiled.warnings.iter().any(|text| text.contains("no Service shop/api")),
        "{:?}",
        compiled.warnings
    );
    f.put(&SERVICE.replace("SPEC", "selector: {app: api}"));
    f.put(&slice("api-1", "api", "[192.0.2.1]"));
    let compiled = f.publish();
    assert_eq!((peers(&compiled), compiled.warnings.len()), ((1, vec![]), 0));
    f.delete(Kind::Service, "shop", "api");
    assert_eq!(peers(&f.publish()), (0, vec![]));
}

#[test]
fn a_service_without_a_selector_is_the_addresses_of_its_slices() {
    let mut f = to_service();
    f.put(&slice("api-1", "api", "[192.0.2.1, 192.0.2.2]"));
    f.put(&SERVICE.replace("SPEC", "selector: {}"));
    f.put(&slice("api-2", "api", "[192.0.2.2, 192.0.2.3]"));
    f.put(&slice("web-1", "web", "[192.0.2.9]"));
    let blocks = |last: &[u8]| last.iter().map(|last| format!("192.0.2.{last}/32")).collect::<Vec<_>>();
    assert_eq!(peers(&f.publish()), (0, blocks(&[1, 2, 3])));
    f.put(&slice("api-1", "web", "[192.0.2.1]"));
    assert_eq!(peers(&f.publish()), (0, blocks(&[2, 3])));
    f.delete(Kind::EndpointSlice, "shop", "api-2");
    assert_eq!(peers(&f.publish()), (0, vec![]));
}

#[test]
fn a_group_of_blocks_is_what_it_says_now() {
    let mut f = to_service();
    f.put(
        "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: out}, spec: \
         {endpointSelector: {}, ingressDeny: [{fromCIDRSet: [{cidrGroupRef: bad, except: [192.0.2.128/25]}]}]}}",
    );
    let denied = |f: &mut Fixture| {
        let compiled = f.publish();
        let rules = policy_of(&compiled).ingress.rules.clone();
        assert!(rules.iter().all(|rule| rule.action == RuleAction::Deny));
        let Peers::Only { blocks, .. } = &rules[0].peers else { panic!("every peer") };
        blocks.iter().map(|block| (block.cidr.to_string(), block.except.len())).collect::<Vec<_>>()
    };
    assert_eq!(denied(&mut f), []);
    let group = "{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: bad}, spec: {externalCIDRs: [BLOCKS]}}";
    f.put(&group.replace("BLOCKS", "192.0.2.0/24, 198.51.100.0/24"));
    assert_eq!(denied(&mut f), [("192.0.2.0/24".to_owned(), 1), ("198.51.100.0/24".to_owned(), 0)]);
    f.put(&group.replace("BLOCKS", "198.51.100.0/24"));
    assert_eq!(denied(&mut f), [("198.51.100.0/24".to_owned(), 0)]);
    f.delete(Kind::CiliumCidrGroup, "", "bad");
    assert_eq!(denied(&mut f), []);
}

#[test]
fn each_specification_of_a_policy_goes_with_it() {
    let mut f = to_service();
    let spec = "{endpointSelector: {}, ingress: [{fromEntities: [world]}]}";
    let policy = |specs: &str| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: db, namespace: shop}}, specs: [{specs}]}}"
        )
    };
    let origins = |f: &mut Fixture| {
        let compiled = f.publish();
        let rules = &policy_of(&compiled).ingress.rules;
        rules.iter().map(|rule| rule.origin.to_string()).collect::<Vec<_>>()
    };
    f.put(&policy(&[spec, spec].join(", ")));
    let of = |number| format!("CiliumNetworkPolicy/shop/db#specs[{number}].ingress[0]");
    assert_eq!(origins(&mut f), [of(0), of(1)]);
    assert!(policy_of(&f.publish()).egress.rules.is_empty(), "the former specification is gone");
    f.put(&policy(spec));
    assert_eq!(origins(&mut f), [of(0)]);
    f.delete(Kind::CiliumNetworkPolicy, "shop", "db");
    assert_eq!(origins(&mut f), Vec::<String>::new());
}
