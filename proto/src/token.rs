//! The text form of a join token: `ogr1_`, then base64url without padding of the encoded [`JoinToken`] and its
//! CRC-32 (IEEE, little endian), so that a truncated or mistyped token is told apart from a refused one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use secrecy::SecretString;
use zeroize::Zeroize as _;

use crate::v1::JoinToken;

/// What every token starts with.
pub const PREFIX: &str = "ogr1_";
/// Bytes of the secret.
pub const SECRET_BYTES: usize = 32;

/// A text that is no token. Never carries the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It does not start with [`PREFIX`].
    #[error("this is no join token: a token starts with `ogr1_`")]
    Prefix,
    /// It has characters that no token has.
    #[error("the token has characters that no token has: copy it again, whole and on one line")]
    Encoding,
    /// Its checksum is wrong.
    #[error("the token is damaged or cut off: copy it again, whole")]
    Checksum,
    /// It was made by something else than a gateway.
    #[error("the token names {0}: ask for a new one")]
    Content(&'static str),
}

/// The text form of a token.
#[must_use]
pub fn encode(token: &JoinToken) -> SecretString {
    let mut bytes = token.encode_to_vec();
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
    bytes.zeroize();
    SecretString::from(text)
}

/// Reads a token; white space around it does not count.
///
/// # Errors
/// [`InvalidToken`], with advice and without the token.
pub fn decode(text: &str) -> Result<JoinToken, InvalidToken> {
    let encoded = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken::Prefix)?;
    let mut bytes = match URL_SAFE_NO_PAD.decode(encoded) {
        Ok(bytes) => bytes,
        // Cut off within a group of four characters.
        Err(base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidLastSymbol { .. }) => {
            return Err(InvalidToken::Checksum);
        }
        Err(base64::DecodeError::InvalidByte(..) | base64::DecodeError::InvalidPadding) => {
            return Err(InvalidToken::Encoding);
        }
    };
    let token = decode_bytes(&bytes);
    bytes.zeroize();
    token
}

fn decode_bytes(bytes: &[u8]) -> Result<JoinToken, InvalidToken> {
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(InvalidToken::Checksum)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return Err(InvalidToken::Checksum);
    }
    let token =
        JoinToken::decode(content).map_err(|_ignored| InvalidToken::Content("nothing that can be read"))?;
    if token.gateways.is_empty() {
        return Err(InvalidToken::Content("no gateway"));
    }
    if token.root_pins.is_empty() || token.root_pins.iter().any(|pin| pin.len() != 32) {
        return Err(InvalidToken::Content("no trusted root"));
    }
    if token.secret.len() != SECRET_BYTES || token.id.is_empty() || token.trust_domain.is_empty() {
        return Err(InvalidToken::Content("no secret"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            gateways: vec!["192.0.2.10:7443".to_owned()],
            root_pins: vec![vec![7; 32]],
            trust_domain: "outrigger.local".to_owned(),
            id: "k3v9".to_owned(),
            secret: vec![42; 32],
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let text = encode(&token());
        assert_eq!(decode(&format!("  {}\n", text.expose_secret())).unwrap(), token());
    }

    #[test]
    fn every_cut_is_noticed_as_one() {
        let text = encode(&token());
        let text = text.expose_secret();
        for length in PREFIX.len()..text.len() {
            assert_eq!(decode(&text[..length]).unwrap_err(), InvalidToken::Checksum, "cut to {length}");
        }
        assert_eq!(decode("hello").unwrap_err(), InvalidToken::Prefix);
        assert_eq!(decode("ogr1_{}").unwrap_err(), InvalidToken::Encoding);
    }

    #[test]
    fn a_token_without_pins_or_gateways_is_refused() {
        let without_pins = JoinToken { root_pins: vec![], ..token() };
        assert_eq!(
            decode(encode(&without_pins).expose_secret()).unwrap_err(),
            InvalidToken::Content("no trusted root")
        );
        let without_gateways = JoinToken { gateways: vec![], ..token() };
        assert_eq!(
            decode(encode(&without_gateways).expose_secret()).unwrap_err(),
            InvalidToken::Content("no gateway")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _result = decode(&format!("{PREFIX}{text}"));
        }
    }
}
