//! The process: connections over TLS for clients, and a socket for tests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use futures_util::TryStreamExt as _;
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::control::Control;
use super::failure::{Answer, Failure};
use super::gc::Owners;
use super::kinds::Kinds;
use super::query::Query;
use super::routes::{self, Ask, Reply};
use super::state::{Shared, State};
use super::store::Store;
use super::users::{self, Users};

/// The largest body that a real server takes.
const LARGEST: usize = 3 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The command line.
#[derive(Debug, Parser)]
#[command(about = "A double of the Kubernetes API server, for tests")]
pub struct Arguments {
    /// Where clients connect; the first is in the kubeconfigs.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// The file of the objects; made if there is none.
    #[arg(long)]
    state: PathBuf,
    /// Where certificate, tokens and kubeconfigs are.
    #[arg(long)]
    folder: PathBuf,
    /// The socket by which tests control it.
    #[arg(long)]
    control: PathBuf,
    /// A user with a kubeconfig of its own; `admin` always is one.
    #[arg(long)]
    user: Vec<String>,
    /// How many changes of each kind can be watched from the past.
    #[arg(long, default_value_t = 10_000)]
    history: usize,
    /// How often a watch tells that time goes on, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    bookmark_ms: u64,
}

/// Serves until the process ends.
pub fn run(arguments: &Arguments) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.folder)?;
    let tls = users::tls(&arguments.folder, &arguments.listen)?;
    let first = arguments.listen.first().context("no address")?;
    let users = Users::open(&arguments.folder, &arguments.user, *first)?;
    let store = Store::open(&arguments.state, arguments.history)?;
    let mut state =
        State { store, kinds: Kinds::built_in(), control: Control::default(), owners: Owners::default() };
    state.begin().map_err(|failure| anyhow::anyhow!(failure.message))?;
    let shared = Arc::new(Shared::new(state, users, arguments.bookmark_ms));
    for address in &arguments.listen {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::clone(&tls)), Arc::clone(&shared)));
    }
    let _ = std::fs::remove_file(&arguments.control);
    let socket = UnixListener::bind(&arguments.control)
        .with_context(|| format!("cannot listen on {}", arguments.control.display()))?;
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = end.recv() => return Ok(()),
            accepted = socket.accept() => {
                tokio::spawn(connection(accepted?.0, Arc::clone(&shared), true));
            }
        }
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls.accept(stream).await {
                Ok(stream) => connection(stream, shared, false).await,
                Err(error) => eprintln!("no TLS: {error}"),
            }
        });
    }
}

/// Answers the requests of a connection.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
    control: bool,
) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(&shared, request, control).await) }
    });
    // A client that goes away in the middle is no news.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>, control: bool) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri());
    let reply = match read(request).await {
        Ok(ask) if control => controlled(shared, &ask),
        Ok(ask) => routes::answer(shared, &ask).await,
        Err(failure) => Err(failure),
    };
    match reply {
        Ok(Reply::Object(code, object)) => json(code, &object),
        Ok(Reply::Text(text)) => {
            response(200, "text/plain", Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
        }
        Ok(Reply::Watch(watch)) => {
            let (lines, stream) = tokio::sync::mpsc::channel(16);
            tokio::spawn(watch.run(lines));
            let frames = ReceiverStream::new(stream).map_ok(Frame::data);
            response(200, "application/json", StreamBody::new(frames).boxed_unsync())
        }
        Err(failure) => {
            if ![404, 409, 410].contains(&failure.code) {
                eprintln!("{line}: {} {}", failure.code, failure.message);
            }
            let mut response = json(failure.code, &failure.status());
            if failure.code == 429 {
                response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            }
            response
        }
    }
}

/// Answers a request on the socket, which only its owner can open.
fn controlled(shared: &Arc<Shared>, ask: &Ask) -> Answer<Reply> {
    let word = ask.path.strip_prefix("/double/").ok_or_else(Failure::unknown_path)?;
    super::control::answer(shared, word, &ask.query).map(|value| Reply::Object(200, value))
}

async fn read(request: Request<Incoming>) -> Answer<Ask> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let path = super::query::decode(&parts.uri.path().replace('+', "%2B"))?;
    match Limited::new(body, LARGEST).collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            Ok(Ask { method: parts.method, path, query, headers: parts.headers, body })
        }
        Err(error) => {
            Err(Failure::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}")))
        }
    }
}

fn json(code: u16, object: &Value) -> Response<Body> {
    let bytes = Full::new(Bytes::from(object.to_string())).map_err(|never| match never {});
    // Clients written in Go tell the two forms of discovery apart by this.
    let media = if super::object::text(object, "/kind") == "APIGroupDiscoveryList" {
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    } else {
        "application/json"
    };
    response(code, media, bytes.boxed_unsync())
}

fn response(code: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
    response
}
