//! What is run, as whom, and what is refused. The files are root's: so are these tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::{chown, symlink};

use super::*;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

struct World {
    folder: tempfile::TempDir,
    exec: Exec,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let exec = Exec::new(folder.path().to_owned(), "nobody".to_owned());
        Self { folder, exec }
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn refused(&self, name: &str) -> String {
        self.exec.run(name.to_owned(), LONG).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_program_runs_without_rights_and_its_end_decides() {
    let world = World::new();
    world.script("good", "exit 0");
    world.script("bad", "exit 3");
    world.exec.run("good".to_owned(), LONG).await.unwrap();
    assert_eq!(world.refused("bad").await, "ended with 3");
    // As somebody without any group, right, or word of the agent's.
    let said = "test \"$(id -u)\" = \"$(id -u nobody)\" && test \"$(id -G)\" = \"$(id -g nobody)\" && \
         grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status && \
         grep -q '^CapPrm:[[:space:]]*0*$' /proc/self/status && test -z \"$HOME$CARGO$USER\" && test \"$PWD\" = /";
    world.script("rights", said);
    world.exec.run("rights".to_owned(), LONG).await.unwrap();
    assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(false), "only its own thread gave that up");
}

#[tokio::test]
async fn what_takes_too_long_is_ended_with_all_that_it_began() {
    let world = World::new();
    let marker = format!("{}", 70_000 + std::process::id());
    world.script("slow", &format!("sleep {marker} & sleep {marker}"));
    let failed = world.exec.run("slow".to_owned(), SHORT).await.unwrap_err();
    assert!(failed.contains("did not end within"), "{failed}");
    world.script("leaves", &format!("sleep {marker} & exit 0"));
    world.exec.run("leaves".to_owned(), LONG).await.unwrap();
    let is_left = |entry: fs::DirEntry| {
        let path = entry.path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let state = fs::read_to_string(path.join("status")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("sleep\0{marker}")) && !state.contains("State:\tZ")
    };
    // What was killed may take a moment to be gone.
    let until = Instant::now() + LONG;
    while fs::read_dir("/proc").unwrap().flatten().any(is_left) {
        assert!(Instant::now() < until, "something is left");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_somebody_else_could_have_written_is_not_run() {
    let world = World::new();
    let foreign = world.script("foreign", "exit 0");
    chown(&foreign, Some(65_534), None).unwrap();
    assert!(world.refused("foreign").await.contains("has to belong to root"));
    for (name, mode) in [("group", 0o775), ("world", 0o757)] {
        let path = world.script(name, "exit 0");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(world.refused(name).await.contains("writable by nobody else"), "{name}");
    }
    let plain = world.script("plain", "exit 0");
    fs::set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();
    assert!(world.refused("plain").await.contains("is no program"));
    world.script("good", "exit 0");
    symlink("good", world.folder.path().join("link")).unwrap();
    assert!(!world.refused("link").await.is_empty(), "a link is no file of this folder");
    for name in ["../good", "", ".", "..", "a/b", ".hidden", "absent"] {
        assert!(!world.refused(name).await.is_empty(), "{name:?}");
    }
    fs::set_permissions(world.folder.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(world.refused("good").await.contains("writable by nobody else"));
}

#[tokio::test]
async fn nothing_runs_as_root_or_as_nobody_knows_whom() {
    let mut world = World::new();
    world.script("good", "exit 0");
    for (user, said) in [("root", "is root"), ("no-such-user", "there is no user")] {
        world.exec.user = user.to_owned();
        assert!(world.refused("good").await.contains(said), "{user}");
    }
}
