//! What `load-bpf` says on the console.

use std::fmt;

use anyhow::{Result, bail};

/// Before each line of `load-bpf`; the kernel's own lines lie between them.
const MARK: &str = "load-bpf: ";

/// What became of each program on one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The kernel's own name for its version.
    pub(super) kernel: String,
    /// The programs in the order of their names.
    pub(super) programs: Vec<Program>,
}

/// What became of one program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Name in the object.
    pub(super) name: String,
    /// What it takes; `Err` is the verifier's log.
    pub(super) verified: Result<Size, Vec<String>>,
}

/// How large a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Instructions that the verifier walked, where the kernel tells (5.16).
    pub(super) instructions: Option<u32>,
    /// Bytes of machine code, of its own and of all its functions.
    pub(super) bytes: u32,
}

/// Whether `load-bpf` was started at all.
pub(super) fn began(console: &str) -> bool {
    console.contains(MARK)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {}", self.kernel)?;
        for Program { name, verified } in &self.programs {
            match verified {
                Ok(Size { instructions: Some(walked), bytes }) => {
                    writeln!(f, "  {name:<24} {walked:>8} instructions verified, {bytes:>6} bytes")?;
                }
                Ok(Size { instructions: None, bytes }) => {
                    writeln!(f, "  {name:<24} accepted, {bytes:>6} bytes")?;
                }
                Err(log) => {
                    writeln!(f, "  {name:<24} REFUSED")?;
                    log.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
                }
            }
        }
        Ok(())
    }
}

impl Report {
    /// Reads a console; one without the loader's last line is an error.
    pub(super) fn read(console: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in console.lines().filter_map(|line| line.split_once(MARK).map(|(_, said)| said)) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("kernel", version) => version.clone_into(&mut report.kernel),
                ("accepted", rest) => report.programs.push(accepted(rest)),
                ("refused", name) => {
                    report.programs.push(Program { name: name.to_owned(), verified: Err(Vec::new()) });
                }
                ("log", text) => report.log(text),
                ("failed", why) => bail!("the object was not loaded: {why}"),
                ("end", _) if report.programs.is_empty() => bail!("the object has no programs"),
                ("end", _) => return Ok(report),
                (other, _) => bail!("unknown line of load-bpf: {other}"),
            }
        }
        let lines: Vec<_> = console.lines().collect();
        let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
        bail!("the machine stopped before all programs were judged; its last words:\n{last}")
    }

    /// Whether the kernel takes every program.
    pub(super) fn accepted(&self) -> bool {
        self.programs.iter().all(|program| program.verified.is_ok())
    }

    fn log(&mut self, text: &str) {
        if let Some(Program { verified: Err(log), .. }) = self.programs.last_mut() {
            log.push(text.to_owned());
        }
    }
}

fn accepted(rest: &str) -> Program {
    let mut words = rest.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let mut number = || words.next().and_then(|word| word.parse().ok());
    Program { name, verified: Ok(Size { instructions: number(), bytes: number().unwrap_or_default() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str =
        "Booting\nload-bpf: kernel 6.1.0\nload-bpf: accepted a 120 900\nload-bpf: accepted b - 80\n";

    #[test]
    fn accepted_programs_are_read() {
        let report = Report::read(&format!("{CONSOLE}load-bpf: end\n")).unwrap();
        assert!(report.accepted());
        assert_eq!(report.kernel, "6.1.0");
        let verified: Vec<_> = report.programs.into_iter().map(|program| program.verified).collect();
        let sizes = [Size { instructions: Some(120), bytes: 900 }, Size { instructions: None, bytes: 80 }];
        assert_eq!(verified, sizes.map(Ok));
    }

    #[test]
    fn one_refused_program_refuses_the_whole_and_shows_the_log() {
        let refused = "load-bpf: refused c\nload-bpf: log R1 invalid mem access\nload-bpf: end\n";
        let report = Report::read(&format!("{CONSOLE}{refused}")).unwrap();
        assert!(!report.accepted());
        assert!(report.to_string().contains("R1 invalid mem access"));
    }

    #[test]
    fn a_crash_while_booting_is_told_from_one_of_the_loader() {
        assert!(began(CONSOLE));
        assert!(!began("Kernel panic - not syncing: Attempted to kill init!\n"));
    }

    #[test]
    fn a_machine_that_stops_early_is_an_error() {
        assert!(Report::read(CONSOLE).is_err());
        assert!(Report::read("load-bpf: kernel 6.1.0\nload-bpf: end\n").is_err());
        assert!(Report::read("load-bpf: failed no object\nload-bpf: end\n").is_err());
    }
}
