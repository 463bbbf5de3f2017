//! Asks Vault one thing on one connection. No redirect is followed, and no answer is longer than it needs to be.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub(super) use http::Method;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::settings::Address;
use crate::ca::SignFailure;

/// How long a connection may take, with its handshake.
const CONNECT: Duration = Duration::from_secs(4);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(6);
/// The longest answer.
const LARGEST: usize = 256 * 1024;
/// The longest header of an answer.
const LARGEST_HEAD: usize = 32 * 1024;
/// How much of Vault's words is passed on.
const LONGEST_TEXT: usize = 300;

/// Where Vault is, and by what it is known.
pub(super) struct Http {
    address: Address,
    ca_file: PathBuf,
    namespace: Option<String>,
}

/// What Vault said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    location: Option<String>,
}

impl Http {
    pub(super) const fn new(address: Address, ca_file: PathBuf, namespace: Option<String>) -> Self {
        Self { address, ca_file, namespace }
    }

    /// Asks. Only what was answered is no error, whatever it says.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&SecretString>,
        body: Option<&Value>,
    ) -> Result<Answer, SignFailure> {
        let request = self.request(method, path, token, body)?;
        let connected = tokio::time::timeout(CONNECT, self.connect());
        let stream = connected.await.map_err(|_elapsed| away("no connection in 4 s"))??;
        let asked = tokio::time::timeout(ANSWER, exchange(stream, request));
        asked.await.map_err(|_elapsed| away("no answer in 6 s"))?
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&SecretString>,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, SignFailure> {
        let unfit = |error: http::Error| SignFailure::Refused(error.to_string());
        let Address { host, port, .. } = &self.address;
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = Request::builder().method(method).uri(format!("/v1/{path}"));
        request = request.header(HOST, host).header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose_secret())
                .map_err(|_odd| SignFailure::Refused("the token has characters that no token has".into()))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        request.header(CONTENT_TYPE, "application/json").body(Full::new(bytes)).map_err(unfit)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, SignFailure> {
        let Address { tls, host, port } = &self.address;
        let tcp =
            TcpStream::connect((host.as_str(), *port)).await.map_err(|error| away(&error.to_string()))?;
        tcp.set_nodelay(true).map_err(|error| away(&error.to_string()))?;
        if !tls {
            return Ok(Box::new(tcp));
        }
        let config = self.trust().await?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_odd| SignFailure::Refused(format!("{host} is no name of a server")))?;
        match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let is_refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                Err(match is_refused {
                    Some(rustls::Error::InvalidCertificate(reason)) => SignFailure::Refused(format!(
                        "its certificate is not trusted ({reason:?}): see `ca.vault.caFile`, {}",
                        self.ca_file.display()
                    )),
                    _ => away(&error.to_string()),
                })
            }
        }
    }

    /// Read anew each time: the file may be exchanged.
    async fn trust(&self) -> Result<ClientConfig, SignFailure> {
        let failed = |reason: String| {
            SignFailure::Refused(format!("{} (`ca.vault.caFile`): {reason}", self.ca_file.display()))
        };
        let text = tokio::fs::read(&self.ca_file).await.map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&text) {
            let root = root.map_err(|error| failed(error.to_string()))?;
            // A system's bundle has some that are of no use, beside those that are.
            let _unusable = roots.add(root);
        }
        if roots.is_empty() {
            return Err(failed("there is no certificate of an authority in it".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| failed(error.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Answer, SignFailure> {
    let lost = |error: hyper::Error| away(&error.to_string());
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(LARGEST_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(async {
        let answer = sender.send_request(request).await.map_err(lost)?;
        read(answer).await
    });
    tokio::select! {
        answer = &mut answered => answer,
        // It ends by itself when everything is read, and the answer is waiting then.
        ended = &mut connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(lost(error)),
        },
    }
}

async fn read(answer: Response<Incoming>) -> Result<Answer, SignFailure> {
    let status = answer.status().as_u16();
    let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(short);
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| away(&format!("its answer cannot be read: {error}")))?.to_bytes();
    // What is no JSON is some proxy's words, which say nothing here.
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Answer { status, body, location })
}

impl Answer {
    /// What was asked for, in its part of the answer.
    pub(super) fn part<T: DeserializeOwned>(self, part: &str, path: &str) -> Result<T, SignFailure> {
        if self.status != 200 {
            return Err(self.refusal(path));
        }
        let value = self.body.get(part).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value)
            .map_err(|error| SignFailure::Refused(format!("{path}: its answer is not understood: {error}")))
    }

    pub(super) fn data<T: DeserializeOwned>(self, path: &str) -> Result<T, SignFailure> {
        self.part("data", path)
    }

    /// Why not.
    fn refusal(self, path: &str) -> SignFailure {
        let Self { status, body, location } = self;
        let errors = body.get("errors").and_then(Value::as_array);
        let words: Vec<&str> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
        let words = if words.is_empty() { String::new() } else { format!(": {}", short(&words.join("; "))) };
        let text = format!("{path}: HTTP {status}{words}");
        match (status, location) {
            (300..=399, location) => {
                let to = location.map(|to| format!(" to {to}")).unwrap_or_default();
                SignFailure::Unavailable(format!("{text}: redirected{to}, which is not followed"))
            }
            // Not consistent yet, too many requests, standby, not initialised, sealed, broken.
            (412 | 429 | 472 | 473 | 500..=599, _) => SignFailure::Unavailable(text),
            _ => SignFailure::Refused(text),
        }
    }
}

fn away(reason: &str) -> SignFailure {
    SignFailure::Unavailable(reason.to_owned())
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}
