//! How many instructions the verifier may walk per program and kernel: what was recorded, and a tenth.
//!
//! A program that grows beyond it is not wrong, but someone should notice before it meets the verifier's limit of a
//! million. Kernels before 5.16 do not tell the number.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::report::Report;
use crate::workspace;

const HEADING: &str = "# Instructions the verifier walks: kernel, program, number.\n\
                       # Written by `cargo xtask verify-kernel 6.1 6.12 --record`.\n";

/// Recorded numbers by kernel and program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    recorded: BTreeMap<(String, String), u32>,
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
            if let Ok(Some(instructions)) = program.verified {
                self.recorded.insert((kernel.to_owned(), program.name.clone()), instructions);
            }
        }
    }

    /// Says which programs need more than their budget.
    pub(super) fn exceeded(&self, kernel: &str, report: &Report) -> Vec<String> {
        let mut lines = Vec::new();
        for program in &report.programs {
            let recorded = self.recorded.get(&(kernel.to_owned(), program.name.clone()));
            if let (Some(recorded), Ok(Some(now))) = (recorded, &program.verified)
                && *now > recorded.saturating_add(recorded / 10)
            {
                lines.push(format!("{} takes {now} instructions, recorded are {recorded}", program.name));
            }
        }
        lines
    }

    fn parse(text: &str) -> Result<Self> {
        let mut budget = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (kernel, program) = words.next().zip(words.next()).with_context(|| line.to_owned())?;
            let number =
                words.next().and_then(|number| number.parse().ok()).with_context(|| line.to_owned())?;
            budget.recorded.insert((kernel, program), number);
        }
        Ok(budget)
    }

    fn text(&self) -> String {
        let lines =
            self.recorded.iter().map(|((kernel, program), number)| format!("{kernel} {program} {number}\n"));
        HEADING.to_owned() + &lines.collect::<String>()
    }
}

fn path() -> PathBuf {
    workspace::root().join("xtask/verified-instructions.txt")
}

#[cfg(test)]
mod tests {
    use super::{super::report::Program, *};

    fn report(instructions: u32) -> Report {
        let program = Program { name: "mesh_ingress".to_owned(), verified: Ok(Some(instructions)) };
        Report { kernel: "6.1.0-1".to_owned(), programs: vec![program] }
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let mut budget = Budget::default();
        budget.record("6.1", &report(1000));
        assert_eq!(Budget::parse(&budget.text()).unwrap(), budget);
        assert!(Budget::parse("6.1 mesh_ingress many\n").is_err());
    }

    #[test]
    fn a_tenth_more_is_within_budget_and_no_more_than_that() {
        let mut budget = Budget::default();
        budget.record("6.1", &report(1000));
        assert!(budget.exceeded("6.1", &report(1100)).is_empty());
        assert_eq!(budget.exceeded("6.1", &report(1101)).len(), 1);
        assert!(budget.exceeded("6.12", &report(9999)).is_empty());
    }
}
