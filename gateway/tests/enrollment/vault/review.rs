//! What `OpenBao` asks of Kubernetes: whose token a token is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Believes every token.
pub(crate) struct Reviewer {
    pub(crate) address: SocketAddr,
    reviewed: Arc<AtomicUsize>,
}

impl Reviewer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, reviewed) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = reviewed.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                let service = service_fn(move |request| answer(request, count.clone()));
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Self { address, reviewed }
    }

    pub(crate) fn reviewed(&self) -> usize {
        self.reviewed.load(Ordering::SeqCst)
    }
}

async fn answer(
    request: Request<Incoming>,
    count: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
    let body = request.into_body().collect().await?.to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap().to_owned();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let groups = ["system:serviceaccounts", "system:authenticated"];
    let user = json!({ "username": claims.get("sub"), "uid": "1", "groups": groups });
    let status = json!({ "authenticated": true, "user": user });
    review.as_object_mut().unwrap().insert("status".to_owned(), status);
    count.fetch_add(1, Ordering::SeqCst);
    let response = Response::builder().status(201).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(review.to_string()))).unwrap())
}

/// A token of a service account, which nobody has signed.
pub(crate) fn jwt(namespace: &str, name: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "iss": "https://kubernetes.default.svc",
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000,
        "exp": 4_000_000_000_u64,
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": "1" } },
    });
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims))
}
