use super::*;

fn block(cidr: &str, except: &[&str]) -> Block {
    Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|e| e.parse().unwrap()).collect(),
        reach: Reach::Everyone,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn holes_are_not_in_the_block() {
    let b = block("10.0.0.0/8", &["10.1.0.0/16"]);
    assert!(b.contains(ip("10.2.0.1")));
    assert!(!b.contains(ip("10.1.0.1")));
    assert!(!b.contains(ip("11.0.0.1")));
}

#[test]
fn families_never_meet_but_mapped_addresses_are_ipv4() {
    assert!(block("10.0.0.0/8", &[]).contains(ip("::ffff:10.0.0.1")));
    assert!(block("::ffff:10.0.0.0/104", &[]).contains(ip("10.0.0.1")));
    for v6 in ["::/0", "::/64", "::fffe:0:0/95"] {
        assert!(!block(v6, &[]).contains(ip("10.0.0.1")), "{v6}");
        assert!(!block(v6, &[]).contains(ip("::ffff:10.0.0.1")), "{v6}");
    }
    assert!(block("::/0", &[]).contains(ip("2001:db8::1")));
}

#[test]
fn sharing_takes_equal_parts_and_only_those() {
    let labels = |text: &str| Arc::new(text.parse::<Labels>().unwrap());
    let state = |a: &str, b: &str| State {
        endpoints: BTreeMap::new(),
        identities: [(256, a), (257, b)]
            .map(|(n, text)| (Identity::try_new(n).unwrap(), labels(text)))
            .into(),
        policies: BTreeMap::new(),
        host_policies: BTreeMap::new(),
    };
    let before = state("k8s:a=1;", "k8s:b=1;");
    let mut after = state("k8s:a=1;", "k8s:b=2;");
    let unshared = after.clone();
    after.share_with(&before);
    assert_eq!(after, unshared);
    let shared = |n| {
        let id = Identity::try_new(n).unwrap();
        Arc::ptr_eq(&after.identities[&id], &before.identities[&id])
    };
    assert!(shared(256));
    assert!(!shared(257));
}
