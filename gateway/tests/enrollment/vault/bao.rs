//! A server of `OpenBao` on loopback, with a PKI engine, for one test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::ca::vault::{Auth, Settings, Vault};
use tempfile::TempDir;

/// The program; `cargo xtask ci openbao` installs it, and runs the tests with it.
const PROGRAM: &str = "OUTRIGGER_BAO";
/// How long it may take to start.
const READY: Duration = Duration::from_mins(1);
/// What the role of the tests says.
pub(crate) const ROLE: [&str; 9] = [
    "allowed_uri_sans=spiffe://outrigger.local/*",
    "use_csr_common_name=false",
    "use_csr_sans=false",
    "require_cn=false",
    "key_type=ec",
    "key_bits=256",
    "no_store=true",
    "key_usage=DigitalSignature",
    "max_ttl=24h",
];

/// A running server, killed with this.
pub(crate) struct Bao {
    child: Child,
    program: PathBuf,
    pub(crate) address: String,
    pub(crate) folder: TempDir,
}

impl Bao {
    /// A server with the engine `pki`, a root in it, and the role `mesh`.
    pub(crate) fn start() -> Self {
        // `cargo xtask ci openbao` sets it.
        let program: PathBuf = std::env::var_os(PROGRAM).unwrap().into();
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(&program)
            .args(["server", "-dev-tls", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-tls-cert-dir={}", folder.path().display()))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        let bao = Self { child, program, address: format!("https://127.0.0.1:{port}"), folder };
        let deadline = Instant::now() + READY;
        while bao.try_run(&["status"]).is_err() {
            assert!(Instant::now() < deadline, "it does not start: {}", bao.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        bao.run(&["secrets", "enable", "pki"]);
        bao.run(&["secrets", "tune", "-max-lease-ttl=87600h", "pki"]);
        bao.root("first");
        bao.role("mesh", &ROLE);
        bao
    }

    /// Runs `bao` as the administrator.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        self.try_run(words).unwrap()
    }

    fn try_run(&self, words: &[&str]) -> Result<String, String> {
        let answer = Command::new(&self.program)
            .args(words)
            .env("BAO_ADDR", &self.address)
            .env("BAO_CACERT", self.ca_file())
            .env("BAO_TOKEN", "root")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if answer.status.success() {
            Ok(text(&answer.stdout))
        } else {
            Err(format!("{words:?}: {}", text(&answer.stderr)))
        }
    }

    /// A new root in the engine.
    pub(crate) fn root(&self, name: &str) {
        let (name, called) = (format!("issuer_name={name}"), format!("common_name={name} root"));
        self.run(&["write", "pki/root/generate/internal", &called, &name, "key_type=ec", "ttl=87600h"]);
    }

    /// A role.
    pub(crate) fn role(&self, name: &str, settings: &[&str]) {
        let path = format!("pki/roles/{name}");
        self.run(&[&["write", &path], settings].concat());
    }

    /// A token that may sign, in a file.
    pub(crate) fn token_file(&self) -> PathBuf {
        let policy =
            self.write("policy", r#"path "pki/issuer/default/sign/*" { capabilities = ["update"] }"#);
        self.run(&["policy", "write", "mesh", &policy.display().to_string()]);
        let token = self.run(&["token", "create", "-field=token", "-policy=mesh", "-ttl=1h"]);
        self.write("token", &token)
    }

    /// A file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What we know of it.
    pub(crate) fn settings(&self, auth: Auth) -> Settings {
        Settings {
            address: self.address.parse().unwrap(),
            ca_file: self.ca_file(),
            namespace: None,
            mount: "pki".to_owned(),
            role: "mesh".to_owned(),
            issuer: "default".to_owned(),
            auth,
        }
    }

    /// What signs, with a token of a file.
    pub(crate) fn signer(&self) -> Arc<Vault> {
        Arc::new(Vault::new(self.settings(Auth::Token { file: self.token_file() })))
    }

    /// Whether a token that was got by logging in so was prolonged.
    pub(crate) fn has_prolonged(&self, login: &str) -> bool {
        let accessors: Vec<String> =
            serde_json::from_str(&self.run(&["list", "-format=json", "auth/token/accessors"])).unwrap();
        accessors.iter().any(|accessor| {
            let looked = self.try_run(&["token", "lookup", "-format=json", "-accessor", accessor]);
            let token: serde_json::Value =
                serde_json::from_str(&looked.unwrap_or_default()).unwrap_or_default();
            token.pointer("/data/path").is_some_and(|path| path == login)
                && token.pointer("/data/last_renewal").is_some_and(serde_json::Value::is_string)
        })
    }

    /// Nothing is signed until [`Bao::unseal`].
    pub(crate) fn seal(&self) {
        self.run(&["operator", "seal"]);
    }

    pub(crate) fn unseal(&self) {
        let log = self.log();
        let key = log.lines().find_map(|line| line.strip_prefix("Unseal Key: ")).unwrap().trim().to_owned();
        self.run(&["operator", "unseal", &key]);
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("vault-ca.pem")
    }

    fn log(&self) -> String {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        read(&self.folder.path().join("log"))
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
