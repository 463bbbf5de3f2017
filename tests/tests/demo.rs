//! `make demo`, as a person runs it.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::binaries;
use e2e::command::{run, tool};
use e2e::process::Process;
use e2e::wait::wait_for;
use nix::sys::signal::Signal;

/// One demo at a time: it measures.
static ALONE: Mutex<()> = Mutex::new(());

fn demo() -> Result<Command> {
    let mut command = Command::new(binaries::folder()?.join("demo"));
    command.env_remove("KEEP");
    Ok(command)
}

/// What a demo with this process id left.
fn left(pid: u32) -> Result<String> {
    let netns = tool("ip", &["netns", "list"])?.stdout;
    let files = std::env::temp_dir().join(format!("ogr-{pid}-0-files"));
    let names: Vec<&str> = netns.lines().filter(|line| line.starts_with(&format!("ogr-{pid}-"))).collect();
    Ok(if files.exists() { format!("{names:?}, {}", files.display()) } else { names.join(" ") })
}

#[test]
fn the_demo_meets_every_expectation() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = run(&mut demo()?, b"", Duration::from_mins(3))?;
    ensure!(answer.succeeded(), "{answer}");
    ensure!(!answer.stdout.contains('\x1b'), "colours without a terminal");
    Ok(())
}

#[test]
fn the_demo_that_is_kept_can_be_tried_and_is_gone_after_ctrl_c() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let logs = tempfile::tempdir()?;
    let mut process = Process::start("demo", demo()?.arg("--keep"), logs.path())?;
    wait_for("the hints", Duration::from_secs(90), || {
        process.stdout().contains("vi db-clients") && process.stdout().contains("Ctrl-C")
            || !process.is_running()
    })?;
    let text = process.stdout();
    let hint = text.lines().map(str::trim).find(|line| line.ends_with("db-1 outrigger status"));
    let words: Vec<&str> = hint.map(|hint| hint.split(' ').collect()).unwrap_or_default();
    let [script, args @ ..] = words.as_slice() else { anyhow::bail!("no hint in {text}") };
    ensure!(Path::new(script).is_file(), "{script} is not there");
    tool(script, args)?;
    process.signal(Signal::SIGINT)?;
    process.wait(Duration::from_secs(15))?;
    let left = left(process.id())?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}

#[test]
fn the_demo_cleans_up_when_it_is_interrupted_in_the_middle() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let logs = tempfile::tempdir()?;
    let mut process = Process::start("demo", &mut demo()?, logs.path())?;
    wait_for("a joined host", Duration::from_mins(1), || process.stdout().contains("shop/db-1"))?;
    process.signal(Signal::SIGINT)?;
    let status = process.wait(Duration::from_secs(15))?;
    ensure!(status.code() == Some(130), "{status}");
    let left = left(process.id())?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}
