use proptest::prelude::*;

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn placement(namespace_labels: &BTreeMap<String, String>) -> Placement<'_> {
    Placement { namespace: "shop", namespace_labels, service_account: "db", cluster: "default" }
}

#[test]
fn pod_labels_are_ciliums() {
    let ns = map(&[("team", "blue")]);
    let labels = Labels::of_pod(&map(&[("app", "db"), ("pod-template-hash", "5d9")]), placement(&ns));
    assert_eq!(
        labels.to_string(),
        "k8s:app=db;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;\
         k8s:io.cilium.k8s.namespace.labels.team=blue;k8s:io.cilium.k8s.policy.cluster=default;\
         k8s:io.cilium.k8s.policy.serviceaccount=db;k8s:io.kubernetes.pod.namespace=shop;"
    );
    assert_eq!(labels.namespace(), Some("shop"));
}

#[test]
fn a_workload_keeps_labels_that_pods_lose() {
    let ns = BTreeMap::new();
    let labels = Labels::of_workload(&map(&[("pod-template-hash", "5d9")]), placement(&ns));
    assert_eq!(labels.get("k8s:pod-template-hash"), Some("5d9"));
}

#[test]
fn own_labels_never_replace_the_placement() {
    let ns = map(&[(NAMESPACE_NAME_KEY, "bank")]);
    let forged = map(&[
        ("io.kubernetes.pod.namespace", "bank"),
        ("io.cilium.k8s.policy.serviceaccount", "root"),
        ("io.cilium.k8s.policy.cluster", "other"),
    ]);
    for labels in [Labels::of_pod(&forged, placement(&ns)), Labels::of_workload(&forged, placement(&ns))] {
        assert_eq!(labels, Labels::of_pod(&BTreeMap::new(), placement(&BTreeMap::new())));
    }
}

#[test]
fn reserved_keys_are_refused_in_every_spelling() {
    for key in [
        "io.kubernetes.pod.namespace",
        "io.cilium.k8s.policy.serviceaccount",
        "io.cilium.k8s.namespace.labels.team",
        "IO.Kubernetes.pod.namespace",
        "io.kubernetes.pod.namespace/x",
        "io.cilium/x",
        "io.cilium",
    ] {
        assert_eq!(check_given(key, "a"), Err(InvalidLabel::Reserved(key.to_owned())), "{key}");
    }
    for key in [
        "k8s:io.kubernetes.pod.namespace",
        "reserved:host",
        "a=b",
        "a;b",
        "",
        "/a",
        "a/",
        "a/b/c",
        "-a",
        "a b",
    ] {
        assert_eq!(check_given(key, "a"), Err(InvalidLabel::Key(key.to_owned())), "{key}");
    }
    for key in ["app", "io.ciliumx/a", "app.kubernetes.io/name", "kubernetes.io/metadata.name"] {
        assert_eq!(check_given(key, "a"), Ok(()), "{key}");
    }
    for value in ["a;k8s:b=c", "a=b", "-a", "a/b"] {
        assert_eq!(check_given("app", value), Err(InvalidLabel::Value(value.to_owned())));
    }
}

#[test]
fn malformed_text_is_refused() {
    assert_eq!("k8s:a=b".parse::<Labels>(), Err(InvalidLabels::Unterminated("k8s:a=b".into())));
    assert_eq!("k8s:a=b;k8s:a=c;".parse::<Labels>(), Err(InvalidLabels::Duplicate("k8s:a".into())));
    assert_eq!("a=b;".parse::<Labels>(), Err(InvalidLabels::Malformed("a=b".into())));
    assert_eq!("k8s:=b;".parse::<Labels>(), Err(InvalidLabels::Malformed("k8s:=b".into())));
    assert_eq!("cidr:a=b;".parse::<Labels>(), Err(InvalidLabels::UnknownSource("cidr:a=b".into())));
    assert_eq!("reserved:remote-node=;".parse(), Ok(Labels::of_remote_node()));
    assert_eq!("".parse(), Ok(Labels::default()));
}

proptest! {
    #[test]
    fn text_round_trips(labels in proptest::collection::btree_map(
        "(k8s|reserved):[a-z]{1,3}(\\.[a-z]{1,3}/[a-z]{1,3})?", "[a-z0-9.:=]{0,5}", 0..6)) {
        let labels = Labels(labels);
        prop_assert_eq!(labels.to_string().parse::<Labels>(), Ok(labels));
    }

    #[test]
    fn any_text_parses_or_not(text in ".{0,40}") {
        if let Ok(labels) = text.parse::<Labels>() {
            prop_assert_eq!(labels.to_string().parse::<Labels>(), Ok(labels));
        }
    }
}
