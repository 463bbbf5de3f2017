//! Test programs, several at a time: between namespaces they mostly wait.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::{Message, camino::Utf8PathBuf};

use super::tally::Tally;
use crate::command;

/// As many run at a time; more would make those wait that count on a timer.
const AT_A_TIME: usize = 2;

/// A test program that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Program {
    name: String,
    executable: Utf8PathBuf,
    /// Of its package, in which cargo would run it.
    folder: PathBuf,
}

/// How a program ended.
struct Ended {
    name: String,
    took: Duration,
    output: Result<Output>,
}

/// Runs the integration tests that `selection` names, with what stands behind its `--` as arguments of each program. A
/// program's output is printed when it has ended, in one piece.
pub(super) fn run(selection: &[&str], source: &str, tally: &mut Tally) -> Result<()> {
    let mut parts = selection.splitn(2, |word| *word == "--");
    let targets = parts.next().unwrap_or_default();
    let arguments = parts.next().unwrap_or_default();
    let programs = built(targets)?;
    ensure!(!programs.is_empty(), "there are no tests of {}", targets.join(" "));
    let mut failed = Vec::new();
    side_by_side(
        programs,
        |program| one(program, arguments, source),
        |ended| {
            println!("== {} ({:.1} s)", ended.name, ended.took.as_secs_f64());
            let is_passed = ended.output.is_ok_and(|output| {
                for line in String::from_utf8_lossy(&output.stdout).lines() {
                    println!("{line}");
                    tally.read(line);
                }
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                output.status.success()
            });
            if !is_passed {
                failed.push(ended.name);
            }
        },
    );
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// What cargo has built of these targets, in the order of their names.
fn built(targets: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(targets);
    let output = cargo.stderr(Stdio::inherit()).output().context("start cargo test")?;
    ensure!(output.status.success(), "cargo test --no-run {} failed", targets.join(" "));
    let mut programs = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        let Message::CompilerArtifact(artifact) = message.context("read the messages of cargo")? else {
            continue;
        };
        // The binaries that tests start are named too.
        let Some(executable) = artifact.executable.filter(|_| artifact.profile.test) else { continue };
        let folder = artifact.manifest_path.parent().context("a manifest is in no folder")?;
        programs.push(Program { name: artifact.target.name, executable, folder: folder.into() });
    }
    programs.sort();
    Ok(programs)
}

fn one(program: Program, arguments: &[&str], source: &str) -> Ended {
    let start = Instant::now();
    let mut command = command::program(&program.executable);
    command
        .args(arguments)
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .env("OUTRIGGER_TEST_SOURCE", source)
        .stdin(Stdio::null());
    let output = command.output().with_context(|| format!("start {}", program.executable));
    if let Err(error) = &output {
        eprintln!("{error:#}");
    }
    Ended { name: program.name, took: start.elapsed(), output }
}

/// Does `work` on each item, some at a time, and hands over what comes of each as it comes.
fn side_by_side<T: Send, U: Send>(items: Vec<T>, work: impl Fn(T) -> U + Sync, mut done: impl FnMut(U)) {
    let (sender, results) = mpsc::channel();
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = next() {
                    // The other end is there until every sender has gone.
                    let _ = sender.send(work(item));
                }
            });
        }
        drop(sender);
        results.iter().for_each(&mut done);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn each_item_is_done_once_and_two_at_a_time() {
        let together = Barrier::new(AT_A_TIME);
        let mut results = Vec::new();
        side_by_side(
            (0..4).collect(),
            |item: i32| {
                together.wait();
                item * 10
            },
            |result| results.push(result),
        );
        results.sort_unstable();
        assert_eq!(results, [0, 10, 20, 30]);
    }
}
