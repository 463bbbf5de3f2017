//! The conformance suite: every case in the model, then through the real datapath, and the report in
//! `target/conformance.json`.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::conformance::{features, in_model, live};

/// Fewer would mean that cases got lost.
const LEAST_CASES: u64 = 350;

#[test]
fn every_case_in_the_model() -> Result<()> {
    let report = in_model(&features(&root().join("conformance"))?);
    println!("{report}");
    ensure!(report.failures().is_empty(), "{} failures", report.failures().len());
    ensure!(report.cases() >= LEAST_CASES, "only {} cases", report.cases());
    Ok(())
}

#[test]
#[ignore = "minutes: `make conformance`, a step of CI"]
fn every_case_with_real_packets() -> Result<()> {
    let features = features(&root().join("conformance"))?;
    let mut report = in_model(&features);
    // What the model gets wrong would be wrong there too.
    if report.failures().is_empty() {
        live::play(&features, &mut report)?;
    }
    report.save(&root().join("../target/conformance.json"))?;
    println!("{report}");
    ensure!(report.failures().is_empty(), "{} failures", report.failures().len());
    ensure!(report.cases() >= LEAST_CASES, "only {} cases", report.cases());
    ensure!(report.live_cases() == report.cases(), "only {} live cases", report.live_cases());
    Ok(())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
