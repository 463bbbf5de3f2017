//! How large programs may be per kernel: what was recorded, and two per cent.
//!
//! A program that grows beyond it is not wrong, but someone should notice before packets pay for it, or it meets the
//! verifier's limit of a million instructions. Both numbers are the same in every run on the same kernel and the same
//! kind of processor. Kernels before 5.16 do not tell what the verifier walked.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::report::{Report, Size};
use crate::workspace;

const HEADING: &str = "# Instructions the verifier walks, and bytes of machine code: kernel, program, two numbers.\n\
                       # Written by `cargo xtask verify-kernel 5.10 6.1 6.12 --record`.\n";

/// Recorded sizes by kernel and program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    recorded: BTreeMap<(String, String), Size>,
}

impl Budget {
    /// Reads the record; without a file nothing is recorded.
    pub(super) fn read() -> Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Replaces the record in the work tree.
    pub(super) fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.text()).with_context(|| format!("write {}", path.display()))
    }

    /// Takes the numbers of a report in the place of those of its kernel.
    pub(super) fn record(&mut self, kernel: &str, report: &Report) {
        self.recorded.retain(|(recorded, _), _| recorded != kernel);
        for program in &report.programs {
            if let Ok(size) = program.verified {
                self.recorded.insert((kernel.to_owned(), program.name.clone()), size);
            }
        }
    }

    /// Says which programs need more than their budget, or have none.
    pub(super) fn exceeded(&self, kernel: &str, report: &Report) -> Vec<String> {
        let mut lines = Vec::new();
        for program in &report.programs {
            let Ok(now) = program.verified else { continue };
            let name = &program.name;
            let Some(then) = self.recorded.get(&(kernel.to_owned(), name.clone())) else {
                lines.push(format!("{name} is not recorded"));
                continue;
            };
            if let (Some(now), Some(then)) = (now.instructions, then.instructions)
                && is_more(now, then)
            {
                lines.push(format!("{name} takes {now} instructions, recorded are {then}"));
            }
            if is_more(now.bytes, then.bytes) {
                lines.push(format!("{name} takes {} bytes, recorded are {}", now.bytes, then.bytes));
            }
        }
        lines
    }

    fn parse(text: &str) -> Result<Self> {
        let mut budget = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let words: Vec<_> = line.split_whitespace().collect();
            let &[kernel, program, instructions, bytes] = words.as_slice() else { anyhow::bail!("{line}") };
            let number = |word: &str| word.parse().with_context(|| line.to_owned());
            let instructions = if instructions == "-" { None } else { Some(number(instructions)?) };
            let size = Size { instructions, bytes: number(bytes)? };
            budget.recorded.insert((kernel.to_owned(), program.to_owned()), size);
        }
        Ok(budget)
    }

    fn text(&self) -> String {
        let line = |((kernel, program), size): (&(String, String), &Size)| {
            let instructions = size.instructions.map_or_else(|| "-".to_owned(), |number| number.to_string());
            format!("{kernel} {program} {instructions} {}\n", size.bytes)
        };
        HEADING.to_owned() + &self.recorded.iter().map(line).collect::<String>()
    }
}

/// Whether a number is more than two per cent above the recorded one.
const fn is_more(now: u32, then: u32) -> bool {
    now > then.saturating_add(then / 50)
}

fn path() -> PathBuf {
    workspace::root().join("xtask/verified-instructions.txt")
}

#[cfg(test)]
mod tests {
    use super::{super::report::Program, *};

    fn report(instructions: Option<u32>, bytes: u32) -> Report {
        let size = Size { instructions, bytes };
        let program = Program { name: "mesh_ingress".to_owned(), verified: Ok(size) };
        Report { kernel: "6.1.0-1".to_owned(), programs: vec![program] }
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let mut budget = Budget::default();
        budget.record("6.1", &report(Some(1000), 500));
        budget.record("5.10", &report(None, 400));
        assert_eq!(Budget::parse(&budget.text()).unwrap(), budget);
        assert!(Budget::parse("6.1 mesh_ingress many 1\n").is_err());
        assert!(Budget::parse("6.1 mesh_ingress 1\n").is_err());
    }

    #[test]
    fn two_per_cent_more_is_within_budget_and_no_more_than_that() {
        let mut budget = Budget::default();
        budget.record("6.1", &report(Some(1000), 500));
        budget.record("5.10", &report(None, 500));
        assert!(budget.exceeded("6.1", &report(Some(1020), 510)).is_empty());
        assert_eq!(budget.exceeded("6.1", &report(Some(1021), 510)).len(), 1);
        assert_eq!(budget.exceeded("6.1", &report(Some(1020), 511)).len(), 1);
        assert_eq!(budget.exceeded("5.10", &report(None, 511)).len(), 1);
        assert_eq!(budget.exceeded("6.12", &report(Some(1), 1)).len(), 1, "a program without a record");
    }
}
