//! The connection to the agent.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use proto::v1::agent_client::AgentClient;
use serde::Deserialize;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::arguments::Global;
use crate::failure::Failure;

/// A client of the agent.
pub(crate) type Client = AgentClient<Channel>;

const DEFAULT_CONFIG: &str = "/etc/outrigger/agent.yaml";

/// What of the agent's configuration says where its socket is; the rest is the agent's business.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Location {
    mesh: Option<String>,
    run_dir: Option<PathBuf>,
}

/// Connects to the agent's socket.
pub(crate) async fn connect(global: &Global) -> Result<Client, Failure> {
    let path = socket(global)?;
    let stream = UnixStream::connect(&path).await.map_err(|error| refused(&path, &error))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://agent.outrigger").connect_with_connector(connector).await;
    let channel = channel.map_err(|error| Failure::Failed(format!("talking to the agent: {error}")))?;
    // A list of every endpoint of a mesh is larger than the default of 4 MB.
    Ok(AgentClient::new(channel).max_decoding_message_size(usize::MAX))
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        return Failure::NotPermitted("the agent's socket is for root: use sudo".to_owned());
    }
    let reason = if kind == io::ErrorKind::NotFound {
        "is missing".to_owned()
    } else if kind == io::ErrorKind::ConnectionRefused {
        "is there, but nobody listens".to_owned()
    } else {
        format!("cannot be used: {error}")
    };
    Failure::NotRunning { path: path.to_owned(), reason }
}

fn socket(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(socket) = &global.socket {
        return Ok(socket.clone());
    }
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let location = match std::fs::read_to_string(&path) {
        Ok(text) => location(&path, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && global.config.is_none() => {
            Location::default()
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Failure::NotPermitted(format!("reading {}: {error}", path.display())));
        }
        Err(error) => return Err(Failure::Usage(format!("reading {}: {error}", path.display()))),
    };
    // The agent's own variables count here too, so that both find the same socket.
    let mesh = std::env::var("OUTRIGGER_MESH").ok().or(location.mesh).unwrap_or_else(|| "default".to_owned());
    let run_dir = std::env::var_os("OUTRIGGER_RUN_DIR").map(PathBuf::from).or(location.run_dir);
    Ok(run_dir.unwrap_or_else(|| PathBuf::from("/run/outrigger")).join(format!("{mesh}.sock")))
}

fn location(path: &Path, text: &str) -> Result<Location, Failure> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Location::default());
    }
    serde_saphyr::from_str(text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Format;

    #[test]
    fn the_socket_is_found_by_flag_or_configuration() {
        let global = |config: Option<&str>, socket: Option<&str>| Global {
            config: config.map(PathBuf::from),
            socket: socket.map(PathBuf::from),
            output: Format::Text,
        };
        assert_eq!(socket(&global(None, Some("/x.sock"))).unwrap(), Path::new("/x.sock"));
        assert!(matches!(socket(&global(Some("/nonexistent"), None)), Err(Failure::Usage(_))));
        let read = |text| location(Path::new("agent.yaml"), text).unwrap();
        let both = read("mesh: blue\nrunDir: /r\nmtu: 1400\n");
        assert_eq!((both.mesh.as_deref(), both.run_dir.as_deref()), (Some("blue"), Some(Path::new("/r"))));
        assert!(read("# nothing\n").mesh.is_none());
    }

    #[test]
    fn errors_of_the_socket_are_told_apart() {
        let failure = |kind: io::ErrorKind| refused(Path::new("/s"), &io::Error::from(kind));
        assert!(matches!(failure(io::ErrorKind::PermissionDenied), Failure::NotPermitted(_)));
        assert!(matches!(failure(io::ErrorKind::NotFound), Failure::NotRunning { .. }));
        assert!(matches!(failure(io::ErrorKind::ConnectionRefused), Failure::NotRunning { .. }));
    }
}
