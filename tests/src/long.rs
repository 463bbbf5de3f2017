//! How long a test is: a few rounds by default, the full count with `OUTRIGGER_LONG=1`, a part of it with a share such as
//! 0.1.

/// `few` rounds, or `many` in a long run.
#[must_use]
pub fn rounds(few: u32, many: u32) -> u32 {
    std::env::var("OUTRIGGER_LONG").map_or(few, |text| of_text(few, many, &text))
}

fn of_text(few: u32, many: u32, text: &str) -> u32 {
    // What is no number asks for all of it.
    let share: f64 = text.parse().unwrap_or(1.0);
    let whole = u64::from(many);
    // In thousandths: shares are rough.
    let thousandths =
        (0..=1000_u32).rev().find(|part| f64::from(*part) <= share * 1000.0).unwrap_or_default();
    let part = whole * u64::from(thousandths) / 1000;
    u32::try_from(part).unwrap_or(many).max(few)
}

#[cfg(test)]
mod tests {
    use super::of_text;

    #[test]
    fn a_share_is_of_the_full_count_and_never_less_than_the_usual_one() {
        let counts = ["0", "0.0001", "0.25", "1", "7", "yes"].map(|text| of_text(8, 1000, text));
        assert_eq!(counts, [8, 8, 250, 1000, 1000, 1000]);
    }
}
