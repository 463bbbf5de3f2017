//! A folder that is not there, or not any more.

use super::*;
use crate::config;

/// Reads the folder of manifests.
pub(super) async fn open(folder: &Path, store: &Store) -> Opened {
    let source = config::Source::Files(folder.join("manifests"));
    Opened::of(&source, &store.kept_objects().unwrap(), None).await.unwrap()
}

#[tokio::test]
async fn without_a_folder_there_is_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifests");
    let opened = Opened::of(&config::Source::Files(path.clone()), &BTreeMap::new(), None).await;
    let text = opened.unwrap_err().to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains("No such file"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_vanishes_is_reported_and_read_again_when_it_is_back() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let health = telemetry::health::Health::default();
    let watching = tokio::spawn(gateway.mesh.watch_source(health.clone(), "source"));
    eventually("it is ready", || health.failing().is_empty()).await;
    let manifests = gateway.folder.path().join("manifests");
    let away = gateway.folder.path().join("away");
    fs::rename(&manifests, &away).unwrap();
    eventually("it is reported", || gateway.mesh.summary().rejected.len() == 1).await;
    eventually("it is not ready", || health.failing().contains_key("source")).await;
    assert!(gateway.mesh.group_exists("shop", "db"));
    fs::rename(&away, &manifests).unwrap();
    eventually("it is read again", || gateway.mesh.summary().rejected.is_empty()).await;
    eventually("it is ready again", || health.failing().is_empty()).await;
    gateway.save("group2.yaml", &GROUP.replace("name: db", "name: web"));
    eventually("it is watched again", || gateway.mesh.group_exists("shop", "web")).await;
    gateway.shutdown.trigger();
    eventually("it is not followed any more", || watching.is_finished()).await;
    assert!(health.failing().contains_key("source"));
}
