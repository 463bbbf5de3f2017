//! Conformance with the policy languages: cases as data and systematic ones, each in the pure model, with the
//! maps asked by the datapath's own code, and through the real datapath; and one report.

use std::path::Path;

use anyhow::{Context, Result, ensure};

pub mod case;
pub mod cast;
pub mod live;
pub mod model;
pub mod report;
pub mod shapes;
pub mod table;

use case::{Case, Feature};
use cast::{Actor, Addresses, Scene};
use model::Judge;
use report::{Outcome, Report};
use table::{Kind, Probe, USUAL};

/// The features of a folder and the systematic ones.
pub fn features(folder: &Path) -> Result<Vec<Feature>> {
    let mut features = case::load(folder)?;
    features.extend(shapes::features());
    Ok(features)
}

/// All cases in the model.
#[must_use]
pub fn in_model(features: &[Feature]) -> Report {
    let mut report = Report::default();
    for feature in features {
        for case in &feature.cases {
            report.add(&feature.name, &case.name, judge(case));
        }
    }
    report
}

/// One case in the model.
#[must_use]
pub fn judge(case: &Case) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = try_judge(case, &mut outcome) {
        outcome.failures.push(format!("{error:#}"));
    }
    outcome
}

fn try_judge(case: &Case, outcome: &mut Outcome) -> Result<()> {
    let addresses = Addresses::of_model();
    let (mut scene, mut judge) = (Scene::new(addresses.clone()), Judge::new(addresses));
    for (index, step) in case.steps.iter().enumerate() {
        for name in step.delete.iter().chain(step.relabel.keys()) {
            ensure!(scene.has(name), "steps[{index}] names {name:?}, which is not there");
        }
        scene.apply(step);
        judge.take(&scene).with_context(|| format!("step {index}"))?;
        for probe in probes(case) {
            outcome.probes += 1;
            let (judged, expected) = (judge.judge(&probe)?, step.table.allows(&probe));
            if judged.allowed() != expected {
                outcome.failures.push(format!("step {index}: {probe}: {judged:?}, expected {expected}"));
            }
        }
    }
    Ok(())
}

/// All that a case is asked about: everybody to everybody else, in both families.
fn probes(case: &Case) -> impl Iterator<Item = Probe> {
    let kinds: Vec<Kind> = USUAL.iter().chain(&case.probes).copied().collect();
    let flow = |from| Actor::all().filter(move |to| *to != from).map(move |to| (from, to));
    Actor::all().flat_map(flow).flat_map(move |(from, to)| {
        let of = |is_v6| {
            kinds.iter().filter(move |kind| kind.is_of(is_v6)).map(move |kind| Probe {
                from,
                to,
                is_v6,
                kind: *kind,
            })
        };
        of(false).chain(of(true)).collect::<Vec<_>>()
    })
}
