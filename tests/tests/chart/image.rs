//! The recipe of the image is what the chart expects.

use std::path::Path;

use e2e::json;

use super::rendered::{Rendered, of_kind};

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_image_is_what_the_pod_starts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/container/Containerfile");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, stage) = text.rsplit_once("\nFROM ").expect("a last stage");
    let says = |word: &str| {
        let line =
            stage.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("no {word}"));
        line.trim().to_owned()
    };
    assert!(stage.starts_with("scratch\n"), "{stage}");
    assert_eq!(says("COPY"), "--from=build /image/ /");
    assert_eq!(says("ENTRYPOINT"), r#"["/usr/bin/outrigger-gateway"]"#);
    assert_eq!(says("EXPOSE"), "7443 9464");
    let answer = Rendered::read().answer;
    let pod = &of_kind(&answer["base"], "Deployment").next().unwrap()["spec"]["template"]["spec"];
    let user = json::number(&pod["securityContext"], "runAsUser");
    assert_eq!(says("USER"), format!("{user}:{user}"));
    // The oldest compiler that the workspace takes.
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(text.contains(&format!("FROM rust:{rust}-")), "not Rust {rust}: {text}");
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_agents_image_has_what_is_typed_in_its_pod() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/container/Containerfile.agent");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, stage) = text.rsplit_once("\nFROM ").expect("a last stage");
    assert!(stage.starts_with("scratch\n"), "{stage}");
    for line in ["COPY --from=build /image/ /", "ENV PATH=/usr/bin", "USER 0:0"] {
        assert!(stage.lines().any(|found| found == line), "no {line}: {stage}");
    }
    assert!(stage.contains(r#"ENTRYPOINT ["/usr/bin/outrigger-agent"]"#), "{stage}");
    assert!(text.contains("--bin outrigger-agent --package cli --bin outrigger "), "{text}");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(text.contains(&format!("FROM rust:{rust}-")), "not Rust {rust}: {text}");
}
