//! Secrets show nowhere: not in logs at their most talkative, not in what the programs tell, not in `/proc`. The sockets
//! are root's, by their mode and by what the kernel says of the caller.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::binaries::Binary;
use e2e::cluster::Cluster;
use e2e::host::Host;
use e2e::net::Underlay;
use e2e::process::Process;
use e2e::wait::wait_for;
use proto::v1::join_request::Credential;

const LOUD: &str = "logLevel: trace\n";
const PATIENCE: Duration = Duration::from_secs(10);

/// The lines of a key in PEM that are not its frame, and its bytes as a careless log would show them.
fn key_material(pem: &str) -> Vec<String> {
    pem.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).map(str::to_owned).collect()
}

/// A token's text, its secret in the forms that logs have, and no part that is public.
fn token_material(text: &str) -> Result<Vec<String>> {
    let token = proto::token::decode(text)?;
    let hex = token.secret.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"));
    let list = format!("{:?}", token.secret);
    let list = list.trim_matches(['[', ']']).to_owned();
    // The secret stands last in the text, and shifts by where it begins.
    let tail = text.get(text.len() - 30..).context("a short token")?;
    Ok(vec![text.to_owned(), hex, list, tail.to_owned()])
}

/// Everything that was said, by whom.
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn file(&mut self, path: &Path) -> Result<()> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        self.0.push((path.display().to_string(), bytes));
        Ok(())
    }

    fn answer(&mut self, on: &Host, words: &[&str]) -> Result<()> {
        let answer = on.run(words)?;
        self.0.push((answer.line.clone(), answer.said().into_bytes()));
        Ok(())
    }

    /// What `/proc` tells of a process.
    fn process(&mut self, process: &Process) -> Result<()> {
        for file in ["cmdline", "environ", "comm", "status"] {
            self.file(&PathBuf::from(format!("/proc/{}/{file}", process.id())))?;
        }
        Ok(())
    }

    fn contains(&self, secret: &str) -> Option<&str> {
        let found = |(_, bytes): &&(String, Vec<u8>)| crate::client::contains(bytes, secret);
        self.0.iter().find(found).map(|(who, _)| who.as_str())
    }
}

/// A world in which everything is logged, and its secrets: a host that joined, one that was refused.
struct Loud {
    cluster: Cluster,
    agent: Agent,
    secrets: Vec<String>,
    said: Said,
}

fn loud() -> Result<Loud> {
    let mut cluster = Cluster::try_with(Underlay::Dual, LOUD)?;
    cluster.group("db")?;
    let host = cluster.net.host("db-1")?;
    let agent = Agent::start_with(&host, LOUD)?;
    let used = cluster.gateway.token("shop/db", &[])?.text;
    let revoked = cluster.gateway.token("shop/db", &[])?;
    cluster.gateway.command(&["token", "revoke", &revoked.id])?.ok()?;
    let kept = cluster.gateway.token("shop/db", &["--uses", "7"])?.text;
    // Refusals of every kind on the way: each is logged by three programs.
    let damaged = used.replace("ogr1_", "ogr1_A");
    let mut answers = Vec::new();
    for bad in [revoked.text.as_str(), &damaged, used.get(..used.len() - 4).context("a short token")?] {
        answers.push(agent.try_join(bad)?);
    }
    answers.push(agent.command(&["join", &kept])?);
    agent.join(&used)?;
    agent.wait_enforcing()?;
    answers.push(agent.try_join(&kept)?);
    ensure!(answers.iter().all(|answer| !answer.succeeded()), "{answers:?}");
    let said = answers.iter().map(|answer| ("join".to_owned(), answer.said().into_bytes())).collect();
    let mut secrets = Vec::new();
    for text in [&used, &revoked.text, &kept] {
        secrets.extend(token_material(text)?);
    }
    let out = cluster.net.folder().join("administrator");
    cluster.gateway.command(&["admin", "issue", "someone", "--out", &out.display().to_string()])?.ok()?;
    for key in [agent.state().join("identity.key"), out.join("admin.key")] {
        secrets.extend(key_material(&std::fs::read_to_string(key)?));
    }
    secrets.extend(root_key(&mut cluster)?);
    Ok(Loud { cluster, agent, secrets, said: Said(said) })
}

/// The root's key, where the store keeps it.
fn root_key(cluster: &mut Cluster) -> Result<Vec<String>> {
    let store = std::fs::read(cluster.gateway.audit_log().with_file_name("gateway.redb"))?;
    let text = String::from_utf8_lossy(&store);
    let start = text.find("-----BEGIN PRIVATE KEY").context("the store holds no key that this test finds")?;
    let pem: String = text.chars().skip(text[..start].chars().count()).take(400).collect();
    let end = pem.find("-----END").context("no end of the key")?;
    Ok(key_material(&pem[..end]))
}

#[test]
fn threat_57_no_secret_shows_anywhere() -> Result<()> {
    let Loud { mut cluster, mut agent, secrets, mut said } = loud()?;
    ensure!(secrets.len() > 15 && secrets.iter().all(|secret| secret.len() > 20), "{}", secrets.len());
    let monitor = agent.monitor("monitor")?;
    let (host, node) = (agent.host().clone(), cluster.node.host().clone());
    for command in [
        "status",
        "status -o json",
        "endpoint list -o json",
        "policy list -o json",
        "connectivity test",
        "--help",
        "join --help",
    ] {
        let words: Vec<&str> = std::iter::once(Binary::Command.name()).chain(command.split(' ')).collect();
        said.answer(&host, &words)?;
    }
    for command in [
        "status -o json",
        "token list -o json",
        "token list",
        "workload list -o json",
        "workload describe shop/db-1",
        "workload describe shop/db-1 -o json",
    ] {
        let words: Vec<&str> = std::iter::once(Binary::Gateway.name()).chain(command.split(' ')).collect();
        said.answer(&node, &words)?;
    }
    for (machine, port) in [(&host, 9465), (&node, 9464), (&node, 9465)] {
        for page in ["metrics", "healthz", "readyz"] {
            said.answer(machine, &["traffic", "get", &format!("http://127.0.0.1:{port}/{page}")])?;
        }
    }
    said.process(agent.process()?)?;
    said.process(cluster.gateway.process()?)?;
    said.process(cluster.transit.process()?)?;
    said.file(&cluster.gateway.audit_log())?;
    drop(monitor);
    for entry in std::fs::read_dir(cluster.net.logs())? {
        said.file(&entry?.path())?;
    }
    let logs: usize = said.0.iter().map(|(_, bytes)| bytes.len()).sum();
    ensure!(
        said.contains("TRACE").is_some() && said.contains("outrigger_").is_some(),
        "only {logs} bytes were said"
    );
    for secret in &secrets {
        let shown = said.contains(secret);
        ensure!(shown.is_none(), "a secret ({} …) shows in {}", &secret[..6], shown.unwrap_or_default());
    }
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    let found = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(found.permissions().mode() & 0o777)
}

#[test]
fn threat_57_sockets_and_files_are_roots() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let member = cluster.member("db", "db-1")?;
    let gateway_state = cluster.gateway.audit_log();
    let gateway_state = gateway_state.parent().context("a folder")?;
    let snapshot = member.state().join("snapshot.bin");
    wait_for("a snapshot", PATIENCE, || snapshot.exists())?;
    for (path, expected) in [
        (member.socket(), 0o600),
        (cluster.gateway.socket(), 0o600),
        (member.state(), 0o700),
        (member.state().join("identity.key"), 0o600),
        (snapshot, 0o600),
        (gateway_state.to_owned(), 0o700),
        (gateway_state.join("gateway.redb"), 0o600),
        (cluster.gateway.audit_log(), 0o600),
    ] {
        let mode = mode(&path)?;
        ensure!(mode == expected, "{}: mode {mode:o}", path.display());
    }
    // Someone opened the sockets to everybody: the kernel still says who calls.
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let programs = [
        (&member.host, member.socket(), Binary::Command, "status"),
        (cluster.node.host(), cluster.gateway.socket(), Binary::Gateway, "status"),
        (cluster.node.host(), cluster.gateway.socket(), Binary::Gateway, "token list"),
        (&member.host, member.socket(), Binary::Command, "leave"),
    ];
    for (host, socket, binary, words) in programs {
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777))?;
        let program = binary.path()?.display().to_string();
        let words: Vec<&str> = nobody.into_iter().chain([program.as_str()]).chain(words.split(' ')).collect();
        let answer = host.run(&words)?;
        ensure!(!answer.succeeded(), "nobody may: {answer}");
        // Not because it could not even connect.
        let said = answer.said();
        ensure!(said.contains("root"), "refused for another reason: {said}");
    }
    member.wait_enforcing()?;
    Ok(())
}

/// The source files of a folder of the workspace.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).flat_map(|path| {
        if path.is_dir() {
            return sources(&path);
        }
        std::fs::read_to_string(&path).map(|text| vec![(path, text)]).unwrap_or_default()
    });
    files.collect()
}

/// No behaviour shows how long a comparison takes, and no test should measure it: this one reads the source.
#[test]
fn threat_authn_secrets_are_compared_in_constant_time() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut constant = 0;
    for folder in ["gateway/src", "vm-agent/src", "proto/src", "pki/src", "cli/src"] {
        for (path, text) in sources(&root.join(folder)) {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines().filter(|line| line.contains("secret")) {
                let compares =
                    ["==", "!=", ".eq(", "starts_with", ".cmp("].iter().any(|word| line.contains(word));
                let is_length = line.contains(".len()") || line.contains("is_empty");
                ensure!(!compares || is_length, "{}: {line}", path.display());
                constant += usize::from(line.contains("ct_eq"));
            }
        }
    }
    ensure!(constant > 0, "no secret is compared at all: this test looks in the wrong place");
    Ok(())
}

/// The token's secret decides, every byte of it, before anything else is told about the token.
#[test]
fn threat_authn_a_wrong_secret_learns_nothing() {
    crate::stand::STAND.test(|stand| {
        let machine = stand.machine()?;
        let revoked = stand.cluster.gateway.token("shop/batch", &[])?;
        stand.cluster.gateway.command(&["token", "revoke", &revoked.id])?.ok()?;
        let token = proto::token::decode(&revoked.text)?;
        let asked = |secret: Vec<u8>| -> Result<String> {
            let key = pki::KeyPair::generate()?;
            let mut request = crate::client::request(&machine, &token, key.request()?);
            request.credential = Some(Credential::TokenSecret(secret));
            let refused =
                crate::client::on(&machine, || async { crate::client::join(&token, request).await })?;
            Ok(refused.err().context("joined")?.message().to_owned())
        };
        ensure!(asked(token.secret.clone())?.contains("revoked"), "the bearer is told");
        let mut said = Vec::new();
        for at in [0, 15, 31] {
            let mut secret = token.secret.clone();
            secret[at] ^= 1;
            said.push(asked(secret)?);
        }
        said.push(asked(Vec::new())?);
        said.push(asked([&token.secret[..], &[0]].concat())?);
        said.push(asked(token.secret[..31].to_vec())?);
        for text in said {
            ensure!(text.contains("secret is wrong") && !text.contains("revoked"), "{text}");
        }
        Ok(())
    });
}
