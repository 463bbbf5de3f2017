//! The only program in the machine of `cargo xtask verify-kernel`: gives every program of the object to the kernel's
//! verifier and tells the console what it said.

use std::{error::Error, fs, iter, path::Path, thread, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError, SchedClassifier},
};
use nix::{
    mount::{MsFlags, mount},
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
};

/// Lines of a verifier's log that are shown; the reason for a refusal is at the end.
const LOG_LINES: usize = 200;
/// The console is a serial line: what was written must leave before the machine stops.
const DRAIN: Duration = Duration::from_secs(1);

fn main() {
    if let Err(error) = judge() {
        say("failed", &chain(error.as_ref()));
    }
    say("end", "");
    thread::sleep(DRAIN);
}

fn say(word: &str, text: &str) {
    println!("load-bpf: {word} {text}");
}

fn judge() -> Result<(), Box<dyn Error>> {
    let none: Option<&str> = None;
    mount(none, "/proc", Some("proc"), MsFlags::empty(), none)?;
    mount(none, "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    mount(none, "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)?;
    // Kernels before 5.11 charge maps to this limit.
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    say("kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    let mut object = load(Path::new("/outrigger.bpf.o"))?;
    let mut programs: Vec<_> = object.programs_mut().collect();
    programs.sort_by_key(|(name, _)| (*name).to_owned());
    for (name, program) in programs {
        match verify(program) {
            Ok((instructions, bytes)) => {
                let number = instructions.map_or_else(|| "-".to_owned(), |number| number.to_string());
                say("accepted", &format!("{name} {number} {bytes}"));
            }
            Err(error) => {
                say("refused", name);
                let log = chain(error.as_ref());
                let lines: Vec<_> = log.lines().collect();
                let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
                for line in last {
                    say("log", line);
                }
            }
        }
    }
    Ok(())
}

/// Opens the object and makes its maps.
fn load(object: &Path) -> Result<Ebpf, Box<dyn Error>> {
    Ok(EbpfLoader::new().default_map_pin_directory("/sys/fs/bpf").load_file(object)?)
}

/// Gives one program to the verifier and returns how many instructions it walked, where the kernel tells, and how many
/// bytes of machine code were made of it.
fn verify(program: &mut Program) -> Result<(Option<u32>, u32), Box<dyn Error>> {
    let kind = program.prog_type();
    let classifier: &mut SchedClassifier =
        program.try_into().map_err(|error: ProgramError| format!("a program of type {kind:?}: {error}"))?;
    classifier.load()?;
    let info = classifier.info()?;
    Ok((info.verified_instruction_count(), info.size_jitted()))
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |error: &&dyn Error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
