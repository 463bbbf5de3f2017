//! What a request asks for in its query: options by name, of which unknown ones are refused.

use std::collections::BTreeMap;

use super::failure::{Answer, Failure};

/// The options of a query.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

/// How a resource version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    NotOlderThan,
    Exact,
}

impl Query {
    /// Reads the part of an URL after `?`.
    pub(super) fn parse(text: &str) -> Answer<Self> {
        let mut options = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            options.insert(decode(key)?, decode(value)?);
        }
        Ok(Self(options))
    }

    /// Refuses options other than these.
    pub(super) fn only(&self, known: &[&str]) -> Answer<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(unknown) => {
                Err(Failure::not_implemented(format!("the query parameter {unknown:?} of this request")))
            }
            None => Ok(()),
        }
    }

    /// An option; empty if it is not given.
    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }

    /// Whether an option is given and true.
    pub(super) fn flag(&self, key: &str) -> Answer<bool> {
        match self.text(key) {
            "" => Ok(self.0.contains_key(key)),
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(Failure::bad_request(format!("{key} is neither true nor false: {other:?}"))),
        }
    }

    /// A number, if it is given.
    pub(super) fn number(&self, key: &str) -> Answer<Option<u64>> {
        match self.text(key) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(error) => Err(Failure::bad_request(format!("{key} is no number: {text:?}: {error}"))),
            },
        }
    }

    /// Whether nothing is to be stored.
    pub(super) fn dry_run(&self) -> Answer<bool> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Failure::bad_request(format!("dryRun is not All: {other:?}"))),
        }
    }

    /// How `resourceVersion` is meant.
    pub(super) fn version_match(&self) -> Answer<Option<Match>> {
        match self.text("resourceVersionMatch") {
            "" => Ok(None),
            "NotOlderThan" => Ok(Some(Match::NotOlderThan)),
            "Exact" => Ok(Some(Match::Exact)),
            other => Err(Failure::bad_request(format!("resourceVersionMatch is unknown: {other:?}"))),
        }
    }
}

pub(super) fn decode(text: &str) -> Answer<String> {
    let bad = || Failure::bad_request(format!("the query is not encoded as URLs are: {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().ok_or_else(bad)?, rest.next().ok_or_else(bad)?];
                *hex::decode(digits).ok().as_deref().and_then(<[u8]>::first).ok_or_else(bad)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_decoded_and_unknown_ones_refused() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&watch=1&limit=5").unwrap();
        assert_eq!(query.text("labelSelector"), "a=b,c");
        assert!(query.flag("watch").unwrap());
        assert_eq!(query.number("limit").unwrap(), Some(5));
        let failure = query.only(&["labelSelector", "watch"]).unwrap_err();
        assert_eq!((failure.code, failure.message.contains("\"limit\"")), (501, true), "{failure:?}");
        assert_eq!(Query::parse("a=%f").unwrap_err().code, 400);
    }
}
