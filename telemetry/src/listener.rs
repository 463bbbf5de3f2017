//! The HTTP listener for metrics and health: `/metrics` (OpenMetrics), `/healthz` (alive), `/readyz` (every check).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::health::Health;
use crate::shutdown::Shutdown;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// A scraper that has not sent its request by then is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept error (such as no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    registry: Arc<Registry>,
    health: Health,
}

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// The operating system's, with the address in its text.
    pub async fn bind(address: SocketAddr, registry: Arc<Registry>, health: Health) -> io::Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        Ok(Self { socket, registry, health })
    }

    /// The bound address; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until shutdown.
    pub async fn serve(self, shutdown: Shutdown) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.wait() => return,
                accepted = self.socket.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "metrics connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (registry, health, shutdown) = (self.registry.clone(), self.health.clone(), shutdown.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(|request: Request<Incoming>| {
                    let response = respond(request.method(), request.uri().path(), &registry, &health);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = shutdown.wait() => {}
                    result = connection => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "metrics connection ended");
                        }
                    }
                }
            });
        }
    }
}

fn respond(method: &Method, path: &str, registry: &Registry, health: &Health) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        "/metrics" => metrics(registry),
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => {
            let failing = health.failing();
            if failing.is_empty() {
                text(StatusCode::OK, "ready\n")
            } else {
                let lines: Vec<_> =
                    failing.iter().map(|(check, reason)| format!("{check}: {reason}")).collect();
                text(StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
            }
        }
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n"),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    if let Err(error) = encode(&mut body, registry) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    }
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn serves_metrics_and_health() {
        let mut registry = Registry::default();
        let joins = Counter::<u64>::default();
        registry.register("outrigger_joins", "Joins", joins.clone());
        joins.inc();
        let health = Health::default();
        health.declare("source", "not read yet");
        let listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), Arc::new(registry), health.clone()).await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::default());
        let server = tokio::spawn(listener.serve(shutdown.clone()));

        assert!(get(address, "/metrics").await.contains("outrigger_joins_total 1"));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("source: not read yet"), "{unready}");
        health.ready("source");
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/secret").await.starts_with("HTTP/1.1 404"));

        shutdown.trigger();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Listener::bind(address, Arc::default(), Health::default()).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
