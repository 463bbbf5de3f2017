//! How long a test is: a few rounds by default, the full count with `OUTRIGGER_LONG` set to anything but 0.

/// `few` rounds, or `many` in a long run.
#[must_use]
pub fn rounds(few: u32, many: u32) -> u32 {
    if std::env::var_os("OUTRIGGER_LONG").is_some_and(|value| value != "0") { many } else { few }
}
