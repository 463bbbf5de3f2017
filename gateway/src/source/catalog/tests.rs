use policy::rules::Section;

use super::*;

fn namespace(name: &str, team: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    team: {team}\n---\n")
}

fn policy(name: &str, ports: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: db}}}}, policyTypes: [Ingress], ingress: [{{ports: {ports}}}]}}\n---\n"
    )
}

fn text(file: &str, content: impl AsRef<str>) -> FileChange {
    FileChange::Text(file.into(), content.as_ref().as_bytes().to_vec())
}

/// Changes as `+Kind/name` and `-Kind/name`.
fn apply(catalog: &mut Catalog, changes: Vec<FileChange>) -> Vec<String> {
    shown(catalog.apply(changes))
}

fn shown(changes: Vec<Change>) -> Vec<String> {
    changes
        .into_iter()
        .map(|change| match change {
            Change::Put(key, _) => format!("+{key}"),
            Change::Delete(key) => format!("-{key}"),
        })
        .collect()
}

/// Rejections as `file:line object instead`.
fn rejected(catalog: &Catalog) -> Vec<String> {
    let line = |rejected: Rejected| {
        let object = rejected.key.map_or_else(|| "?".to_owned(), |key| key.to_string());
        format!("{}:{} {object} {:?}", rejected.file, rejected.position.line, rejected.instead)
    };
    catalog.rejected().into_iter().map(line).collect()
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn objects_come_change_and_go_with_their_file() {
    let mut catalog = Catalog::default();
    let both = namespace("a", "blue") + &namespace("b", "blue");
    assert_eq!(apply(&mut catalog, vec![text("x.yaml", &both)]), ["+Namespace/a", "+Namespace/b"]);
    assert_eq!(apply(&mut catalog, vec![text("x.yaml", &both)]), none());
    let one = namespace("a", "red");
    assert_eq!(apply(&mut catalog, vec![text("x.yaml", one)]), ["+Namespace/a", "-Namespace/b"]);
    assert_eq!(apply(&mut catalog, vec![FileChange::Gone("x.yaml".into())]), ["-Namespace/a"]);
    assert!(catalog.in_force().is_empty());
    assert_eq!(rejected(&catalog), none());
}

#[test]
fn the_last_good_version_of_a_refused_object_stays() {
    let mut catalog = Catalog::default();
    apply(&mut catalog, vec![text("x.yaml", namespace("a", "blue") + &namespace("b", "blue"))]);
    let bad = namespace("a", "[]") + &namespace("b", "red");
    assert_eq!(apply(&mut catalog, vec![text("x.yaml", bad)]), ["+Namespace/b"]);
    assert_eq!(rejected(&catalog), ["x.yaml:6 Namespace/a LastGood"]);
    assert_eq!(
        apply(&mut catalog, vec![text("x.yaml", namespace("a", "red"))]),
        ["+Namespace/a", "-Namespace/b"]
    );
    assert_eq!(rejected(&catalog), none());
}

#[test]
fn everything_of_a_file_that_cannot_be_read_stays() {
    let mut catalog = Catalog::default();
    apply(&mut catalog, vec![text("x.yaml", namespace("a", "blue") + &namespace("b", "blue"))]);
    for broken in [text("x.yaml", "a: [\n"), FileChange::Unreadable("x.yaml".into(), "denied".into())] {
        assert_eq!(apply(&mut catalog, vec![broken]), none());
        assert_eq!(catalog.in_force().len(), 2);
        assert_eq!(catalog.rejected()[0].instead, Instead::LastGood);
    }
    let latin1 = FileChange::Text("x.yaml".into(), b"a: b\nc: \xe9\n".to_vec());
    assert_eq!(apply(&mut catalog, vec![latin1]), none());
    assert_eq!(rejected(&catalog), ["x.yaml:2 ? LastGood"]);
    assert_eq!(apply(&mut catalog, vec![text("x.yaml", namespace("b", "blue"))]), ["-Namespace/a"]);
    assert_eq!(apply(&mut catalog, vec![text("new.yaml", "a: [\n")]), none());
    assert_eq!(catalog.rejected()[0].instead, Instead::Nothing);
}

#[test]
fn a_namespace_that_was_never_valid_has_labels_that_cannot_be_read() {
    let mut catalog = Catalog::default();
    let broken = namespace("shop", "blue").replace("team: blue", "team: [blue]");
    assert_eq!(apply(&mut catalog, vec![text("n.yaml", &broken)]), ["+Namespace/shop"]);
    let unreadable = |catalog: &Catalog| match catalog.in_force().values().next() {
        Some(Object::Namespace(namespace)) => namespace.unreadable,
        other => panic!("{other:?}"),
    };
    assert!(unreadable(&catalog));
    assert!(matches!(&*rejected(&catalog), [one] if one.ends_with("Namespace/shop Unreadable")));
    assert!(catalog.unsaved().is_empty(), "what was never good is not kept");
    apply(&mut catalog, vec![text("n.yaml", namespace("shop", "blue"))]);
    assert!(!unreadable(&catalog));
    // From now on the last good version stays.
    apply(&mut catalog, vec![text("n.yaml", &broken)]);
    assert!(!unreadable(&catalog));
}

#[test]
fn a_policy_that_was_never_valid_isolates_until_it_is() {
    let mut catalog = Catalog::default();
    assert_eq!(
        apply(&mut catalog, vec![text("p.yaml", policy("db", "[{port: 99999}]"))]),
        ["+NetworkPolicy/shop/db"]
    );
    let in_force: Vec<_> = catalog.in_force().values().collect();
    assert!(
        matches!(&*in_force, [Object::Policies(policies)] if policies[0].ingress == Some(Section::isolating(Vec::new())))
    );
    assert_eq!(rejected(&catalog), ["p.yaml:4 NetworkPolicy/shop/db Isolation"]);
    assert!(catalog.unsaved().is_empty(), "what was never good is not kept");
    assert_eq!(
        apply(&mut catalog, vec![text("p.yaml", policy("db", "[{port: 80}]"))]),
        ["+NetworkPolicy/shop/db"]
    );
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", policy("db", "[{port: 99999}]"))]), none());
    assert_eq!(rejected(&catalog), ["p.yaml:4 NetworkPolicy/shop/db LastGood"]);
}

#[test]
fn isolation_outlasts_a_file_that_cannot_be_read() {
    let mut catalog = Catalog::default();
    let never_valid = policy("db", "[{port: 99999}]");
    apply(&mut catalog, vec![text("p.yaml", namespace("a", "b") + &never_valid)]);
    for broken in ["a: [", "a: [[", "b: ["] {
        assert_eq!(apply(&mut catalog, vec![text("p.yaml", broken)]), none());
        assert_eq!(catalog.in_force().len(), 2);
    }
    assert_eq!(apply(&mut catalog, vec![FileChange::Unreadable("p.yaml".into(), "denied".into())]), none());
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", never_valid)]), ["-Namespace/a"]);
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", "")]), ["-NetworkPolicy/shop/db"]);
    assert_eq!(rejected(&catalog), none());
}

#[test]
fn yaml_without_a_readable_selector_touches_nothing() {
    let mut catalog = Catalog::default();
    let unreadable = policy("db", "[]").replace("podSelector", "podSelektor");
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", unreadable)]), none());
    assert_eq!(rejected(&catalog), ["p.yaml:4 NetworkPolicy/shop/db Nothing"]);
}

#[test]
fn of_two_files_with_one_object_the_first_name_counts() {
    let mut catalog = Catalog::default();
    apply(&mut catalog, vec![text("b.yaml", namespace("a", "blue"))]);
    assert_eq!(apply(&mut catalog, vec![text("a.yaml", namespace("a", "red"))]), ["+Namespace/a"]);
    assert_eq!(rejected(&catalog), ["b.yaml:1 Namespace/a Other"]);
    assert_eq!(apply(&mut catalog, vec![text("c.yaml", namespace("a", "green"))]), none());
    assert_eq!(apply(&mut catalog, vec![FileChange::Gone("a.yaml".into())]), ["+Namespace/a"]);
    assert_eq!(rejected(&catalog), ["c.yaml:1 Namespace/a Other"]);
    let twice = namespace("z", "one") + &namespace("z", "two");
    apply(&mut catalog, vec![text("z.yaml", twice)]);
    assert_eq!(rejected(&catalog), ["c.yaml:1 Namespace/a Other", "z.yaml:8 Namespace/z Other"]);
}

#[test]
fn a_misspelt_kind_does_not_lift_the_policy() {
    let mut catalog = Catalog::default();
    let good = policy("db", "[{port: 80}]");
    apply(&mut catalog, vec![text("p.yaml", &good)]);
    let misspelt = good.replace("kind: NetworkPolicy", "kind: NetworkPolicyy");
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", &misspelt)]), none());
    assert_eq!(rejected(&catalog), ["p.yaml:2 ? LastGood"]);
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", misspelt + &namespace("a", "b"))]), ["+Namespace/a"]);
    assert_eq!(catalog.in_force().len(), 2);
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", "")]), ["-Namespace/a", "-NetworkPolicy/shop/db"]);
}

#[test]
fn foreign_kinds_in_a_file_do_not_hold_what_is_deleted_from_it() {
    let mut catalog = Catalog::default();
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: db}\n---\n";
    apply(&mut catalog, vec![text("p.yaml", deployment.to_owned() + &policy("db", "[{port: 80}]"))]);
    assert_eq!(apply(&mut catalog, vec![text("p.yaml", deployment)]), ["-NetworkPolicy/shop/db"]);
}

#[test]
fn what_was_good_before_a_restart_counts_where_the_files_still_claim_it() {
    let mut before = Catalog::default();
    let names = ["kept", "gone", "refused"];
    let all: String = names.map(|name| namespace(name, "blue")).concat();
    apply(&mut before, vec![text("broken.yaml", namespace("other", "blue")), text("x.yaml", all)]);
    let good: BTreeMap<_, _> = before.unsaved().into_iter().map(|(key, good)| (key, good.unwrap())).collect();
    before.saved();
    assert!(before.unsaved().is_empty());

    let mut after = Catalog::with_last_good(good);
    let changes = vec![
        text("broken.yaml", "a: ["),
        text("x.yaml", namespace("kept", "blue") + &namespace("refused", "[]")),
    ];
    assert_eq!(apply(&mut after, changes), ["+Namespace/kept", "+Namespace/other", "+Namespace/refused"]);
    assert_eq!(shown(after.forget_unclaimed()), none());
    assert_eq!(
        after.unsaved().iter().map(|(key, good)| (key.name.as_str(), good.is_some())).collect::<Vec<_>>(),
        [("gone", false)]
    );
    assert_eq!(rejected(&after), ["broken.yaml:1 ? LastGood", "x.yaml:13 Namespace/refused LastGood"]);
}

#[test]
fn a_group_with_members_stays_and_says_so() {
    let mut catalog = Catalog::default();
    let group = "apiVersion: outrigger.dev/v1alpha1\nkind: ExternalWorkloadGroup\nmetadata: {name: db, namespace: shop}\n\
                 spec: {template: {labels: {app: db}}}\n";
    let key = ObjectKey::new(Kind::ExternalWorkloadGroup, "shop", "db");
    apply(&mut catalog, vec![text("g.yaml", group)]);
    assert_eq!(shown(catalog.set_groups_in_use(BTreeSet::from([key.clone()]))), none());
    assert_eq!(apply(&mut catalog, vec![FileChange::Gone("g.yaml".into())]), none());
    assert_eq!(rejected(&catalog), ["g.yaml:0 ExternalWorkloadGroup/shop/db LastGood"]);
    assert!(catalog.rejected()[0].reason.contains("has members"));
    assert_eq!(shown(catalog.set_groups_in_use(BTreeSet::new())), ["-ExternalWorkloadGroup/shop/db"]);
    assert_eq!(rejected(&catalog), none());

    let mut restarted = Catalog::default();
    apply(&mut restarted, vec![text("g.yaml", group)]);
    let good = restarted.unsaved().into_iter().map(|(key, good)| (key, good.unwrap())).collect();
    let mut restarted = Catalog::with_last_good(good);
    restarted.set_groups_in_use(BTreeSet::from([key]));
    restarted.forget_unclaimed();
    assert_eq!(restarted.in_force().len(), 1);
}
