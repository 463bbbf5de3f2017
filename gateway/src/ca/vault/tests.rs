//! A server that answers as no Vault should.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pki::{CheckedCsr, KeyPair, SpiffeId, TrustDomain, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_hours(490_896));

/// What was asked, and what answers: one answer for each request, the last one for ever.
struct Server {
    address: Address,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (asked, answers) = (Arc::new(Mutex::new(Vec::new())), answers.to_vec());
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 16_384];
                let read = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(head);
                    seen.len()
                };
                let answer = answers.get(number - 1).or(answers.last()).unwrap();
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        Self { address, asked }
    }

    fn paths(&self) -> Vec<String> {
        let path = |head: &String| head.split(' ').nth(1).unwrap().to_owned();
        self.asked.lock().unwrap().iter().map(path).collect()
    }

    fn vault(&self, auth: Auth) -> Vault {
        Vault::new(Settings {
            address: self.address.clone(),
            ca_file: "/dev/null".into(),
            namespace: Some("team".to_owned()),
            mount: "pki".to_owned(),
            role: "mesh".to_owned(),
            issuer: "default".to_owned(),
            auth,
        })
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn token(folder: &Path) -> Auth {
    let file = folder.join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    Auth::Token { file }
}

async fn sign(vault: &Vault) -> Result<Signed, SignFailure> {
    let csr = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
    let domain = TrustDomain::try_new("outrigger.local").unwrap();
    let id = SpiffeId::workload(&domain, "shop", "db-1").unwrap();
    vault.sign(&Asked { csr: &csr, id: &id, now: NOW, lifetime: Duration::from_hours(1) }).await
}

#[tokio::test]
async fn odd_answers_are_told_apart_and_tell_no_secret() {
    let own = answer("200 OK", r#"{"data":{"ttl":0}}"#);
    let large = answer("200 OK", &" ".repeat(300_000));
    let redirect =
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://192.0.2.1/v1/x\r\ncontent-length: 0\r\n\r\n";
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let words = r#"{"errors":["Vault is sealed"]}"#;
    let folder = tempfile::tempdir().unwrap();
    for (odd, is_away, text) in [
        (redirect.to_owned(), true, "redirected to http://192.0.2.1/v1/x, which is not followed"),
        (answer("503 Service Unavailable", words), true, "HTTP 503: Vault is sealed"),
        (answer("429 Too Many Requests", "<html>"), true, "HTTP 429"),
        (large, true, "cannot be read"),
        (endless, true, ""),
        (String::new(), true, ""),
        (answer("404 Not Found", r#"{"errors":[]}"#), false, "pki/issuer/default/sign/mesh: HTTP 404"),
        (answer("200 OK", "{}"), false, "not understood"),
        (answer("200 OK", r#"{"data":{"certificate":"none"}}"#), false, "that is none"),
    ] {
        let server = Server::start(&[own.clone(), odd]).await;
        let failure = sign(&server.vault(token(folder.path()))).await.unwrap_err();
        assert_eq!(matches!(failure, SignFailure::Unavailable(_)), is_away, "{failure}");
        assert!(failure.to_string().contains(text) && !failure.to_string().contains("s3cret"), "{failure}");
        assert!(!format!("{failure:?}").contains("s3cret"));
        let asked = server.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|head| head.contains("x-vault-token: s3cret\r\n")), "{asked:?}");
        assert!(asked.iter().all(|head| head.contains("x-vault-namespace: team\r\n")), "{asked:?}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_logs_in_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let secret_id_file = folder.path().join("secret");
    std::fs::write(&secret_id_file, "s3cret").unwrap();
    let granted = answer("200 OK", r#"{"auth":{"client_token":"t","lease_duration":60,"renewable":true}}"#);
    let denied = answer("403 Forbidden", r#"{"errors":["permission denied"]}"#);
    let server = Server::start(&[granted.clone(), denied.clone(), granted, denied]).await;
    let mount = "approle".to_owned();
    let vault = server.vault(Auth::AppRole { mount, role_id: "r".to_owned(), secret_id_file });
    let failure = sign(&vault).await.unwrap_err();
    assert!(
        matches!(&failure, SignFailure::Refused(text) if text.contains("permission denied")),
        "{failure}"
    );
    let (login, sign) = ("/v1/auth/approle/login", "/v1/pki/issuer/default/sign/mesh");
    assert_eq!(server.paths(), [login, sign, login, sign]);
}

#[tokio::test]
async fn a_file_without_a_secret_is_named() {
    let server = Server::start(&[answer("200 OK", "{}")]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing");
    let failure = sign(&server.vault(Auth::Token { file: file.clone() })).await.unwrap_err().to_string();
    assert!(failure.contains("missing") && failure.contains("tokenFile"), "{failure}");
    std::fs::write(&file, "\n").unwrap();
    let failure = sign(&server.vault(Auth::Token { file: file.clone() })).await.unwrap_err().to_string();
    assert!(failure.contains("it is empty"), "{failure}");
    std::fs::write(&file, "two\nlines").unwrap();
    let failure = sign(&server.vault(Auth::Token { file })).await.unwrap_err().to_string();
    assert!(failure.contains("characters"), "{failure}");
    assert_eq!(server.paths(), [""; 0]);
}
