//! The median and how sure it is.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Median {
    /// The median.
    pub(super) value: f64,
    /// The lower end of the interval.
    pub(super) low: f64,
    /// The upper end.
    pub(super) high: f64,
}

impl Median {
    /// Of some values; the interval by bootstrap with a fixed seed.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let sample =
                    (0..values.len()).filter_map(|_| values.get(random.random_range(0..values.len())));
                middle(sample.copied().collect(), 1, 2)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Self {
            value: middle(values.to_vec(), 1, 2),
            low: middle(medians.clone(), 25, 1000),
            high: middle(medians, 975, 1000),
        }
    }
}

/// The value below which `part` of `whole` of the values are; 0 of none.
fn middle(mut values: Vec<f64>, part: usize, whole: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last * part + whole / 2) / whole).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_shrinks_with_the_spread() {
        let wide = Median::of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let narrow = Median::of(&[3.9, 4.0, 4.0, 4.0, 4.0, 4.1, 4.0]);
        assert!((wide.value - 4.0).abs() < 1e-9 && (narrow.value - 4.0).abs() < 1e-9);
        assert!(wide.low <= wide.value && wide.value <= wide.high);
        assert!(narrow.high - narrow.low < wide.high - wide.low);
    }
}
