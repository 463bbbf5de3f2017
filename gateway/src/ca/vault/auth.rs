//! Who we are to Vault: a token that is given, or got by logging in; prolonged at half of its time, and got anew where it
//! is not taken any more.

use std::path::Path;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::http::{Http, Method};
use super::settings::Auth;
use crate::ca::SignFailure;

/// The largest file with a secret.
const LARGEST: usize = 64 * 1024;

/// How we log in, and the token that we have.
pub(super) struct Session {
    auth: Auth,
    /// Locked while somebody logs in: nobody else has to then.
    token: Mutex<Option<Token>>,
}

struct Token {
    secret: SecretString,
    /// When to prolong it, and when it ends; `None`: never.
    lease: Option<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    renewable: bool,
    half: Instant,
    end: Instant,
}

/// What logging in gives.
#[derive(Deserialize)]
struct Granted {
    client_token: String,
    lease_duration: u64,
    renewable: bool,
}

/// What a token says of itself.
#[derive(Deserialize)]
struct OwnToken {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

impl Session {
    pub(super) fn new(auth: Auth) -> Self {
        Self { auth, token: Mutex::new(None) }
    }

    /// A token that is not known to have ended.
    pub(super) async fn token(&self, http: &Http) -> Result<SecretString, SignFailure> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_mut() {
            if !token.is_over() {
                token.prolong(http).await;
                return Ok(token.secret.clone());
            }
            *held = None;
        }
        let token = self.log_in(http).await?;
        Ok(held.insert(token).secret.clone())
    }

    /// Forgets a token that was not taken, unless somebody has another one already.
    pub(super) async fn forget(&self, refused: &SecretString) {
        let mut held = self.token.lock().await;
        let refused = refused.expose_secret().as_bytes();
        let is_refused = |held: &Token| held.secret.expose_secret().as_bytes().ct_eq(refused).into();
        if held.as_ref().is_some_and(is_refused) {
            *held = None;
        }
    }

    /// Prolongs the token that there is, if it is time.
    pub(super) async fn keep(&self, http: &Http) {
        if let Some(token) = self.token.lock().await.as_mut() {
            token.prolong(http).await;
        }
    }

    async fn log_in(&self, http: &Http) -> Result<Token, SignFailure> {
        match &self.auth {
            Auth::Token { file } => given(http, secret(file, "ca.vault.auth.tokenFile").await?).await,
            Auth::Kubernetes { mount, role, jwt_file } => {
                let jwt = secret(jwt_file, "ca.vault.auth.kubernetes.jwtFile").await?;
                granted(http, mount, &json!({ "role": role, "jwt": jwt.expose_secret() })).await
            }
            Auth::AppRole { mount, role_id, secret_id_file } => {
                let secret = secret(secret_id_file, "ca.vault.auth.appRole.secretIdFile").await?;
                let body = json!({ "role_id": role_id, "secret_id": secret.expose_secret() });
                granted(http, mount, &body).await
            }
        }
    }
}

impl Token {
    fn is_over(&self) -> bool {
        self.lease.is_some_and(|lease| Instant::now() >= lease.end)
    }

    /// A failure costs nothing yet: the token still works, or is not taken, and then another one is got.
    async fn prolong(&mut self, http: &Http) {
        let Some(lease) = self.lease.filter(|lease| lease.renewable && Instant::now() >= lease.half) else {
            return;
        };
        let path = "auth/token/renew-self";
        let answer = http.call(Method::POST, path, Some(&self.secret), Some(&json!({}))).await;
        match answer.and_then(|answer| answer.part::<Granted>("auth", path)) {
            Ok(granted) => self.lease = Lease::new(granted.lease_duration, granted.renewable),
            Err(error) => {
                tracing::info!(%error, "the token for Vault is not prolonged");
                let rest = lease.end.saturating_duration_since(Instant::now()) / 2;
                self.lease = Some(Lease { half: Instant::now() + rest, ..lease });
            }
        }
    }
}

impl Lease {
    /// `None` for a token that never ends.
    fn new(seconds: u64, renewable: bool) -> Option<Self> {
        let (now, lasts) = (Instant::now(), Duration::from_secs(seconds));
        (seconds > 0).then(|| Self { renewable, half: now + lasts / 2, end: now + lasts })
    }
}

/// A token of a file. How long it lasts is asked; one that may not ask is used until it is not taken any more.
async fn given(http: &Http, secret: SecretString) -> Result<Token, SignFailure> {
    let path = "auth/token/lookup-self";
    let answer = http.call(Method::GET, path, Some(&secret), None).await?;
    let own: Option<OwnToken> = answer.data(path).ok();
    Ok(Token { secret, lease: own.and_then(|own| Lease::new(own.ttl, own.renewable)) })
}

async fn granted(http: &Http, mount: &str, body: &Value) -> Result<Token, SignFailure> {
    let path = format!("auth/{mount}/login");
    let answer = http.call(Method::POST, &path, None, Some(body)).await?;
    let granted: Granted = answer.part("auth", &path)?;
    tracing::debug!(mount, lease = granted.lease_duration, "logged in to Vault");
    let lease = Lease::new(granted.lease_duration, granted.renewable);
    Ok(Token { secret: SecretString::from(granted.client_token), lease })
}

/// A secret of a file, without the line's end.
async fn secret(file: &Path, key: &str) -> Result<SecretString, SignFailure> {
    let failed = |reason: &str| SignFailure::Refused(format!("{} (`{key}`): {reason}", file.display()));
    let bytes = Zeroizing::new(tokio::fs::read(file).await.map_err(|error| failed(&error.to_string()))?);
    if bytes.len() > LARGEST {
        return Err(failed("it is too large for a secret"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_binary| failed("it is no text"))?.trim();
    if text.is_empty() {
        return Err(failed("it is empty"));
    }
    Ok(SecretString::from(text.to_owned()))
}
