//! Texts that may be join tokens.

use proto::token::{decode, encode};
use secrecy::ExposeSecret;

/// Whatever the text, reading it does not panic; what is read has one text only, and that one is read again.
///
/// # Panics
///
/// If that is not so.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match decode(text) {
        Ok(token) => {
            let again = decode(encode(&token).expose_secret());
            assert_eq!(again.ok(), Some(token), "the text form of a token is not read as the token");
        }
        Err(error) => {
            // Of letters that a token may have, and longer than any word of an error.
            let body = text.trim().trim_start_matches("ogr1_");
            let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let is_secret = body.len() >= 16 && body.chars().all(letters);
            assert!(!is_secret || !error.to_string().contains(body), "the error repeats the text");
        }
    }
}
