//! Precedence, positions and refusals.

use super::*;
use clap::Parser as _;

fn parse(text: &str) -> Result<Options, String> {
    config::parse(Path::new("agent.yaml"), text).map_err(|error| error.to_string())
}

fn arguments(line: &[&str]) -> Result<Arguments, String> {
    let line = std::iter::once("outrigger-agent").chain(line.iter().copied());
    Arguments::try_parse_from(line).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_gives_the_defaults() {
    for text in ["", "# nothing\n", "\n\n", "{}"] {
        let config = Config::from(parse(text).unwrap());
        assert_eq!(config, Config::from(Options::default()));
        assert_eq!(config.socket(), Path::new("/run/outrigger/default.sock"));
        assert_eq!(config.allowed_cidrs, None);
    }
}

#[test]
fn every_key_of_a_full_file_is_read() {
    let config = Config::from(
        parse(
            "mesh: blue\ndevice: ogr1\nstateDir: /s\nrunDir: /r\nbpffs: /b\nunderlayAddresses: [192.0.2.1, \"2001:db8::1\"]\n\
             mtu: 1400\nallowedCIDRs:\n  - 10.0.0.0/8\ngateways: [\"gw.example:7443\", \"[2001:db8::2]:7443\"]\n\
             metricsListen: 127.0.0.1:1\nmachineIdFile: /m\ndmiUuidFile: /d\nhostname: web\nlogFormat: json\n\
             logLevel: debug\nonFailure: open\n",
        )
        .unwrap(),
    );
    assert_eq!(config.mesh.to_string(), "blue");
    assert_eq!(config.device.to_string(), "ogr1");
    assert_eq!(config.underlay_addresses.len(), 2);
    assert_eq!(config.mtu.unwrap().get(), 1400);
    assert_eq!(config.allowed_cidrs, Some(vec!["10.0.0.0/8".parse().unwrap()]));
    assert_eq!(config.gateways[1].host(), "2001:db8::2");
    assert_eq!(config.metrics_listen.port(), 1);
    assert_eq!(config.hostname.as_deref(), Some("web"));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.on_failure, OnFailure::Open);
    assert_eq!(
        (config.state_dir, config.run_dir, config.bpffs, config.machine_id_file, config.dmi_uuid_file),
        ("/s".into(), "/r".into(), "/b".into(), "/m".into(), "/d".into())
    );
}

#[test]
fn an_empty_list_of_cidrs_allows_none() {
    assert_eq!(Config::from(parse("allowedCIDRs: []").unwrap()).allowed_cidrs, Some(Vec::new()));
    let flags = arguments(&["--allowed-cidrs", ""]).unwrap();
    assert_eq!(Config::from(flags.options).allowed_cidrs, Some(Vec::new()));
}

#[test]
fn an_unknown_key_is_refused_with_its_position() {
    let error = parse("mesh: blue\ndevise: ogr1\n").unwrap_err();
    assert!(error.starts_with("agent.yaml:2:1: "), "{error}");
    assert!(error.contains("devise") && error.contains("device"), "{error}");
}

#[test]
fn an_invalid_value_names_file_field_and_value() {
    for (text, position, key, value) in [
        ("mesh: blue\nmtu: 20\n", "agent.yaml:2:", "mtu: ", "`20`"),
        ("mesh: Blue\n", "agent.yaml:1:", "mesh: ", "`Blue`"),
        ("gateways:\n  - one\n", "agent.yaml:2:", "gateways: ", "`one`"),
        ("allowedCIDRs:\n- 10.0.0.0/8\n- 10.0.0.0/33\n", "agent.yaml:3:", "allowedCIDRs: ", "`10.0.0.0/33`"),
        ("logFormat: xml\n", "agent.yaml:1:", "logFormat: ", "xml"),
        ("metricsListen: localhost\n", "agent.yaml:1:", "metricsListen: ", "`localhost`"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(position), "{error}");
        assert!(error.contains(key) && error.contains(value), "{error}");
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let flags =
        arguments(&["--mesh", "red", "--underlay-addresses", "192.0.2.1,2001:db8::1"]).unwrap().options;
    let config = Config::from(flags.or(parse("mesh: blue\nmtu: 1300").unwrap()));
    assert_eq!(config.mesh.to_string(), "red");
    assert_eq!(config.underlay_addresses.len(), 2);
    assert_eq!(config.mtu.unwrap().get(), 1300);
}

#[test]
fn an_invalid_flag_names_flag_and_value() {
    let error = arguments(&["--mtu", "20"]).unwrap_err();
    assert!(error.contains("--mtu") && error.contains("20"), "{error}");
}

#[test]
fn every_key_is_a_flag_and_a_variable() {
    use clap::CommandFactory as _;
    let command = Arguments::command();
    for argument in
        command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
    {
        let id = argument.get_id().as_str();
        assert_eq!(argument.get_long().unwrap(), id.replace('_', "-"));
        assert_eq!(argument.get_env().unwrap().to_str().unwrap(), format!("OUTRIGGER_{}", id.to_uppercase()));
    }
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(arguments(&["--config", "/nonexistent/agent.yaml"]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/agent.yaml"), "{error}");
}

#[test]
fn a_node_that_joins_by_itself_needs_both_files() {
    let load =
        |flags: &[&str]| Config::load(arguments(&[&["--config", "/dev/null"], flags].concat()).unwrap());
    let both = ["--account-token-file", "/t", "--bootstrap-file", "/b"];
    let files = AccountFiles { token: "/t".into(), bootstrap: "/b".into() };
    assert_eq!(load(&both).unwrap().account, Some(files));
    assert_eq!(load(&[]).unwrap().account, None);
    for (alone, words) in
        [(&both[..2], "accountTokenFile needs bootstrapFile"), (&both[2..], "bootstrapFile needs")]
    {
        let refused = load(alone).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
