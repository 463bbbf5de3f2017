//! Vault or `OpenBao` signs: its PKI engine with a role, at the issuer that is named. The role must take no name from the
//! request, which has none, and allow the URIs of the trust domain.

mod auth;
mod http;
mod settings;

use pki::{Asked, CertificateDer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SignFailure, Signed, Signer};
use auth::Session;
use http::{Answer, Http, Method};
pub use settings::{Address, Auth, InvalidSetting, Settings};

/// Certificates that an answer may have.
const MOST_CERTIFICATES: usize = 16;

/// A PKI engine of Vault, and who it knows us as.
pub struct Vault {
    settings: Settings,
    name: String,
    elsewhere: String,
    http: Http,
    session: Session,
}

/// What signing gives, and what an issuer says of itself.
#[derive(Deserialize)]
struct Data {
    certificate: String,
    #[serde(default)]
    issuing_ca: Option<String>,
    #[serde(default)]
    ca_chain: Option<Vec<String>>,
}

impl Vault {
    /// A client; nothing is asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { address, mount, issuer, .. } = &settings;
        let name = format!("Vault at {address}");
        let elsewhere = format!(
            "make a new issuer at {mount} there, and the default once every host trusts its root (now: issuer {issuer}); hosts follow"
        );
        let http = Http::new(address.clone(), settings.ca_file.clone(), settings.namespace.clone());
        let session = Session::new(settings.auth.clone());
        Self { settings, name, elsewhere, http, session }
    }

    /// Asks as who we are. One whose token is not taken logs in again, once.
    async fn authorised(&self, path: &str, body: &Value) -> Result<Answer, SignFailure> {
        let token = self.session.token(&self.http).await?;
        let answer = self.http.call(Method::POST, path, Some(&token), Some(body)).await?;
        if answer.status != 403 {
            return Ok(answer);
        }
        self.session.forget(&token).await;
        let token = self.session.token(&self.http).await?;
        self.http.call(Method::POST, path, Some(&token), Some(body)).await
    }
}

#[tonic::async_trait]
impl Signer for Vault {
    fn name(&self) -> &str {
        &self.name
    }

    fn elsewhere(&self) -> &str {
        &self.elsewhere
    }

    async fn sign(&self, asked: &Asked<'_>) -> Result<Signed, SignFailure> {
        let Settings { mount, issuer, role, .. } = &self.settings;
        let path = format!("{mount}/issuer/{issuer}/sign/{role}");
        let body = json!({
            "csr": asked.csr.to_pem(),
            "uri_sans": asked.id.to_string(),
            "ttl": format!("{}s", asked.lifetime.as_secs()),
            "exclude_cn_from_sans": true,
            "format": "pem",
        });
        let data: Data = self.authorised(&path, &body).await?.data(&path)?;
        let authorities = data.authorities()?;
        let mut chain = certificates(&data.certificate)?;
        chain.extend(authorities.iter().cloned());
        Ok(Signed { chain, authorities })
    }

    async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, SignFailure> {
        self.session.keep(&self.http).await;
        let Settings { mount, issuer, .. } = &self.settings;
        let path = format!("{mount}/issuer/{issuer}/json");
        let mut data: Data = self.http.call(Method::GET, &path, None, None).await?.data(&path)?;
        data.issuing_ca = Some(data.certificate.clone());
        data.authorities()
    }
}

impl Data {
    /// Who signed, then who signed for it.
    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, SignFailure> {
        let chain = self.ca_chain.as_ref().filter(|chain| !chain.is_empty());
        let texts: Vec<&String> = match (chain, &self.issuing_ca) {
            (Some(chain), _) => chain.iter().collect(),
            (None, one) => one.iter().collect(),
        };
        if texts.len() > MOST_CERTIFICATES {
            return Err(SignFailure::Refused(format!("its chain has {} certificates", texts.len())));
        }
        let mut all = Vec::new();
        for text in texts {
            all.extend(certificates(text)?);
        }
        Ok(all)
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, SignFailure> {
    pki::certificates_from_pem(pem)
        .map_err(|error| SignFailure::Refused(format!("it answers with a certificate that is none: {error}")))
}

#[cfg(test)]
mod tests;
