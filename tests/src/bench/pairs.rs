//! Paired comparisons: two ways in blocks of four cells, ABBA and BAAB in turn, so that a drift of the machine meets
//! both alike. What counts is the median of the ratios within pairs.

use anyhow::Result;

use super::statistics::Median;

/// One cell: operations a second, and operations per second of CPU time of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    /// Per second.
    pub(super) rate: f64,
    /// Per second that some CPU was busy.
    pub(super) per_cpu: f64,
}

/// How two ways compare.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// Rate of the first over the second.
    pub(super) rate: Median,
    /// The same per CPU time.
    pub(super) per_cpu: Median,
    /// Rate of the first.
    pub(super) first: f64,
    /// Rate of the second.
    pub(super) second: f64,
}

/// Compares two ways. `cell` measures the first (`true`) or the second; each is measured once before, for nothing.
pub(super) fn compare(blocks: u32, mut cell: impl FnMut(bool) -> Result<Cell>) -> Result<Comparison> {
    cell(true)?;
    cell(false)?;
    let mut pairs = Vec::new();
    for block in 0..blocks {
        for lead in [block % 2 == 0, block % 2 != 0] {
            let (one, two) = (cell(lead)?, cell(!lead)?);
            pairs.push(if lead { (one, two) } else { (two, one) });
        }
    }
    let median = |of: fn(&(Cell, Cell)) -> f64| Median::of(&pairs.iter().map(of).collect::<Vec<_>>());
    Ok(Comparison {
        rate: median(|(a, b)| a.rate / b.rate),
        per_cpu: median(|(a, b)| a.per_cpu / b.per_cpu),
        first: median(|(a, _)| a.rate).value,
        second: median(|(_, b)| b.rate).value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_drift_does_not_favour_the_way_that_comes_first() {
        let mut speed = 1000.0;
        let comparison = compare(10, |first| {
            speed *= 0.99;
            let rate = if first { 0.9 * speed } else { speed };
            Ok(Cell { rate, per_cpu: rate })
        })
        .unwrap();
        assert!((comparison.rate.value - 0.9).abs() < 0.01, "{comparison:?}");
        assert!(comparison.first < comparison.second);
    }

    #[test]
    fn a_cell_that_fails_fails_the_comparison() {
        let outcome = compare(1, |first| {
            anyhow::ensure!(first, "no way");
            Ok(Cell { rate: 1.0, per_cpu: 1.0 })
        });
        assert!(outcome.is_err());
    }
}
