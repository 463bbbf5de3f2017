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
            let said = error.to_string();
            let secret = text.trim();
            assert!(secret.len() < 12 || !said.contains(secret), "the error repeats the text");
        }
    }
}
