//! What came of it: counts for each feature, and every failure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// What came of one case.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many flows were tried.
    pub probes: u64,
    /// What was not as expected.
    pub failures: Vec<String>,
}

/// Counts for each feature.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    features: BTreeMap<String, Counts>,
    failures: Vec<String>,
}

/// Of a feature.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    cases: u64,
    probes: u64,
    /// Cases that went through the real datapath.
    live: u64,
    live_probes: u64,
    failed: u64,
}

/// Failures of a case that are shown; the others say the same again.
const SHOWN: usize = 6;

impl Report {
    /// What came of a case in the model.
    pub fn add(&mut self, feature: &str, case: &str, outcome: Outcome) {
        let counts = self.features.entry(feature.to_owned()).or_default();
        counts.cases += 1;
        counts.probes += outcome.probes;
        self.fail(feature, case, outcome);
    }

    /// What came of a case in the real datapath.
    pub fn add_live(&mut self, feature: &str, case: &str, outcome: Outcome) {
        let counts = self.features.entry(feature.to_owned()).or_default();
        counts.live += 1;
        counts.live_probes += outcome.probes;
        self.fail(feature, &format!("{case} (live)"), outcome);
    }

    fn fail(&mut self, feature: &str, case: &str, outcome: Outcome) {
        if outcome.failures.is_empty() {
            return;
        }
        self.features.entry(feature.to_owned()).or_default().failed += 1;
        let more = outcome.failures.len().saturating_sub(SHOWN);
        let shown = outcome.failures.into_iter().take(SHOWN);
        self.failures.extend(shown.map(|failure| format!("{feature}: {case}: {failure}")));
        if more > 0 {
            self.failures.push(format!("{feature}: {case}: and {more} more"));
        }
    }

    /// How many cases there are.
    #[must_use]
    pub fn cases(&self) -> u64 {
        self.features.values().map(|counts| counts.cases).sum()
    }

    /// How many went through the real datapath.
    #[must_use]
    pub fn live_cases(&self) -> u64 {
        self.features.values().map(|counts| counts.live).sum()
    }

    /// What was not as expected.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Writes it as JSON.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, counts: &Counts| {
            let Counts { cases, probes, live, live_probes, failed } = counts;
            writeln!(f, "{name:34} {cases:6} {probes:9} {live:6} {live_probes:9} {failed:7}")
        };
        writeln!(
            f,
            "{:34} {:>6} {:>9} {:>6} {:>9} {:>7}",
            "feature", "cases", "flows", "live", "flows", "failed"
        )?;
        let mut sum = Counts::default();
        for (name, counts) in &self.features {
            row(f, name, counts)?;
            sum.cases += counts.cases;
            sum.probes += counts.probes;
            sum.live += counts.live;
            sum.live_probes += counts.live_probes;
            sum.failed += counts.failed;
        }
        row(f, "in all", &sum)?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "FAILED {failure}"))
    }
}
