//! Configuration files of both daemons, as texts and as rows of keys.

use std::fmt::Write as _;
use std::path::Path;

use config::InvalidFile;
use gateway::config::InvalidConfig;
use vm_agent::config::OnFailure;

use super::choices::Choices;

const FILE: &str = "/etc/outrigger/fuzz.yaml";

/// A key with values that it can have, and values that it cannot.
type Key = (&'static str, &'static [&'static str], &'static [&'static str]);

const AGENT: [Key; 15] = [
    ("mesh", &["default", "a-1"], &["A", "1a", "''", "a_b"]),
    ("device", &["ogr0", "mesh.1"], &["..", "a/b", "sixteen-letters-", "'a b'"]),
    ("stateDir", &["/var/lib/x", "relative"], &["[]"]),
    ("underlayAddresses", &["[]", "[192.0.2.1, '2001:db8::1']"], &["[192.0.2]", "[192.0.2.1/24]"]),
    ("mtu", &["1280", "65000"], &["1279", "65001", "many", "-1"]),
    ("allowedCIDRs", &["[]", "[10.0.0.0/8]"], &["[10.0.0.0/33]", "[any]"]),
    ("gateways", &["['gw:1']", "['[::1]:7443', 'a.b:65535']"], &["['gw']", "['::1:7443']", "['gw:0']"]),
    ("metricsListen", &["127.0.0.1:1", "'[::1]:9465'"], &["'9465'", "localhost:1"]),
    ("logFormat", &["text", "json", "journald"], &["xml", "TEXT"]),
    ("logLevel", &["info", "'info,gateway=debug'"], &["[]"]),
    ("onFailure", &["failsafe", "open"], &["closed", "Open"]),
    ("hostname", &["host-1", "''"], &["{}"]),
    ("execProbes", &["true", "false"], &["sometimes", "[]"]),
    ("execProbeUser", &["nobody", "probe"], &["[]"]),
    ("probesDir", &["/p"], &["{}"]),
];

const GATEWAY: [Key; 14] = [
    ("workloadPools", &["[10.0.0.0/24]", "['fd00::/112', 10.9.0.0/16]"], &["[10.0.0.0/33]", "[pool]"]),
    ("podPrefixes", &["[]", "[10.1.0.0/16]"], &["[10.1.0.0]", "[10.1.0.0/x]"]),
    ("listen", &["'[::]:7443'", "192.0.2.1:1"], &["nowhere", "'7443'", "gw:1"]),
    ("advertise", &["[]", "['gw:1']"], &["['::1:1']", "['gw:65536']"]),
    ("trustDomain", &["outrigger.local", "a"], &["Example", "a/b", "''"]),
    ("clusterId", &["0", "255"], &["256", "-1", "one"]),
    ("tunnelPort", &["1", "65535"], &["65536", "-1", "udp"]),
    ("certificateTtl", &["1s", "24h", "90m"], &["long", "1month", "-1s"]),
    ("renewGrace", &["90d", "1s"], &["1month", "''"]),
    ("endpointLease", &["30s", "5m"], &["soon", "-1m"]),
    ("endpointStaleShare", &["0", "50", "100"], &["256", "half", "-1"]),
    ("logFormat", &["text", "json"], &["xml"]),
    ("metricsListen", &["127.0.0.1:9464"], &["9464"]),
    ("stateDir", &["/s"], &["[]"]),
];

/// Whatever the text, reading it as a configuration does not panic, and a refusal names the file and a line of it. Of
/// keys with valid values every file is accepted; of one with an invalid value or an unknown key, the refusal names
/// that line and that key. What is accepted, written out again in full, is the same configuration.
///
/// # Panics
///
/// If that is not so.
pub fn config(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.byte() % 4 {
        0 => text(choices.rest(), read_agent),
        1 => text(choices.rest(), read_gateway),
        2 => rows(&mut choices, &AGENT, read_agent),
        _ => rows(&mut choices, &GATEWAY, read_gateway),
    }
}

/// Reads a file; what was accepted as text of every key.
type Read = fn(&str) -> Result<String, InvalidFile>;

fn text(bytes: &[u8], read: Read) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match read(text) {
        Ok(written) => {
            assert_eq!(read(&written).unwrap(), written, "written out, it is another one: {text:?}");
        }
        Err(error) => drop(refusal(&error, text)),
    }
}

/// The line and the key that a refusal names.
fn refusal(error: &InvalidFile, text: &str) -> (u64, Option<String>) {
    let InvalidFile::Content { line, key, reason, .. } = error else { panic!("{error}") };
    // YAML ends lines with either character.
    let lines = u64::try_from(text.split(['\n', '\r']).count()).unwrap();
    assert!(*line <= lines, "line {line} of {lines}");
    assert!(error.to_string().starts_with(FILE) && !reason.trim().is_empty(), "{error}");
    (*line, key.clone())
}

/// A file of several keys, of which at most one line is wrong.
fn rows(choices: &mut Choices<'_>, keys: &[Key], read: Read) {
    let first = choices.below(keys.len());
    let count = 1 + choices.below(keys.len());
    let wrong = choices.flag().then(|| choices.below(count));
    let mut text = String::new();
    for (number, (key, valid, invalid)) in keys.iter().cycle().skip(first).take(count).enumerate() {
        let is_wrong = wrong == Some(number);
        match (is_wrong, choices.flag()) {
            (true, true) => writeln!(text, "{key}x: {}", choices.one_of(valid)).unwrap(),
            (true, false) => writeln!(text, "{key}: {}", choices.one_of(invalid)).unwrap(),
            (false, _) => writeln!(text, "{key}: {}", choices.one_of(valid)).unwrap(),
        }
    }
    match (read(&text), wrong) {
        (Ok(written), None) => assert_eq!(read(&written).unwrap(), written),
        (Err(error), Some(number)) => {
            let (line, key) = refusal(&error, &text);
            assert_eq!(line, u64::try_from(number).unwrap() + 1, "{error} in {text}");
            let expected = text.lines().nth(number).unwrap().split(':').next();
            assert!(error.to_string().contains(expected.unwrap()), "{error}");
            assert_eq!(key.as_deref(), expected, "{error}");
        }
        (Ok(_), Some(number)) => panic!("line {} is accepted: {text}", number + 1),
        (Err(error), None) => panic!("{error}: {text}"),
    }
}

fn quoted(value: &impl ToString) -> String {
    serde_json::Value::String(value.to_string()).to_string()
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(&item)).collect();
    format!("[{}]", items.join(", "))
}

fn path(path: &Path) -> String {
    quoted(&path.display())
}

fn read_agent(text: &str) -> Result<String, InvalidFile> {
    let options: vm_agent::config::Options = config::parse(Path::new(FILE), text)?;
    let config = vm_agent::config::Config::from(options);
    let mut out = format!(
        "mesh: {}\ndevice: {}\nstateDir: {}\nrunDir: {}\nbpffs: {}\nmachineIdFile: {}\ndmiUuidFile: {}\n",
        quoted(&config.mesh),
        quoted(&config.device),
        path(&config.state_dir),
        path(&config.run_dir),
        path(&config.bpffs),
        path(&config.machine_id_file),
        path(&config.dmi_uuid_file),
    );
    writeln!(out, "underlayAddresses: {}", list(&config.underlay_addresses)).unwrap();
    writeln!(out, "gateways: {}", list(&config.gateways)).unwrap();
    writeln!(out, "metricsListen: {}\nlogFormat: {}", quoted(&config.metrics_listen), config.log_format)
        .unwrap();
    writeln!(out, "logLevel: {}", quoted(&config.log_level)).unwrap();
    let on_failure = match config.on_failure {
        OnFailure::Failsafe => "failsafe",
        OnFailure::Open => "open",
    };
    writeln!(out, "onFailure: {on_failure}").unwrap();
    writeln!(out, "execProbes: {}", config.exec_probes).unwrap();
    writeln!(out, "execProbeUser: {}", quoted(&config.exec_probe_user)).unwrap();
    writeln!(out, "probesDir: {}", path(&config.probes_dir)).unwrap();
    if let Some(mtu) = config.mtu {
        writeln!(out, "mtu: {}", mtu.get()).unwrap();
    }
    if let Some(allowed) = &config.allowed_cidrs {
        writeln!(out, "allowedCIDRs: {}", list(allowed)).unwrap();
    }
    if let Some(hostname) = &config.hostname {
        writeln!(out, "hostname: {}", quoted(hostname)).unwrap();
    }
    Ok(out)
}

fn read_gateway(text: &str) -> Result<String, InvalidFile> {
    let options: gateway::config::Options = config::parse(Path::new(FILE), text)?;
    let config = gateway::config::Config::from_options(with_pool(options), Path::new(FILE));
    Ok(write_gateway(&config.unwrap_or_else(|error| {
        misfit(&error);
        let default = with_pool(gateway::config::Options::default());
        gateway::config::Config::from_options(default, Path::new(FILE)).unwrap()
    })))
}

/// The options with the one key that has no default.
fn with_pool(mut options: gateway::config::Options) -> gateway::config::Options {
    let pool = || config::List(vec!["10.200.0.0/24".parse().unwrap()]);
    options.workload_pools = options.workload_pools.or_else(|| Some(pool()));
    options
}

/// The values are each valid, and do not fit together: the key is named.
fn misfit(error: &InvalidConfig) {
    let said = error.to_string();
    let keys = [
        "workloadPools",
        "podPrefixes",
        "certificateTtl",
        "clusterName",
        "tunnelPort",
        "endpointLease",
        "endpointStaleShare",
        "manifests",
        "kubeconfig",
    ];
    assert!(said.starts_with(FILE) && keys.iter().any(|key| said.contains(key)), "{said}");
}

fn write_gateway(config: &gateway::config::Config) -> String {
    let mut out = match &config.source {
        gateway::config::Source::Files(folder) => format!("manifests: {}\n", path(folder)),
        gateway::config::Source::Kubernetes(settings) => {
            let kubeconfig = settings.kubeconfig.as_deref();
            let kubeconfig = kubeconfig.map(|file| format!("kubeconfig: {}\n", path(file)));
            format!("source: kubernetes\n{}", kubeconfig.unwrap_or_default())
        }
    };
    write!(
        out,
        "stateDir: {}\nlisten: {}\nadvertise: {}\ntrustDomain: {}\nclusterName: {}\n",
        path(&config.state_dir),
        quoted(&config.listen),
        list(&config.advertise),
        quoted(&config.trust_domain),
        quoted(&config.cluster_name),
    )
    .unwrap();
    writeln!(out, "clusterId: {}\ntunnelPort: {}", config.cluster_id, config.tunnel_port).unwrap();
    writeln!(out, "workloadPools: {}", list(config.workload_pools.prefixes())).unwrap();
    writeln!(out, "podPrefixes: {}", list(&config.pod_prefixes)).unwrap();
    writeln!(out, "certificateTtl: {}ns", config.certificate_ttl.as_nanos()).unwrap();
    writeln!(out, "renewGrace: {}s", config.renew_grace.as_secs()).unwrap();
    writeln!(out, "endpointLease: {}ns", config.endpoint_lease.as_nanos()).unwrap();
    writeln!(out, "endpointStaleShare: {}", config.endpoint_stale_share).unwrap();
    writeln!(out, "adminSocket: {}", path(&config.admin_socket)).unwrap();
    writeln!(out, "metricsListen: {}", quoted(&config.metrics_listen)).unwrap();
    writeln!(out, "auditLog: {}", path(&config.audit_log)).unwrap();
    writeln!(out, "logFormat: {}\nlogLevel: {}", config.log_format, quoted(&config.log_level)).unwrap();
    out
}
