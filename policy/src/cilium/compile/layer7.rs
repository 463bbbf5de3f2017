//! Rules of layer 7: checked for their form, so that a mistake in them is seen today. None is enforced.

use regex::RegexBuilder;

use super::Compiler;
use crate::cilium::api::{HeaderMatch, Http, L7Rules};

/// What a compiled expression may take. Envoy's own limit is of the same order.
const LARGEST_EXPRESSION: usize = 1 << 20;

/// `api.MismatchAction`.
const MISMATCHES: [&str; 4] = ["LOG", "ADD", "DELETE", "REPLACE"];

impl Compiler<'_> {
    /// Whether they restrict anything.
    pub(super) fn judge_l7(&mut self, rules: &L7Rules, path: &str) -> bool {
        let kinds = [
            rules.http.is_some(),
            rules.dns.is_some(),
            rules.kafka.is_some(),
            rules.l7proto.is_some() || rules.l7.is_some(),
        ];
        let given = kinds.into_iter().filter(|given| *given).count();
        if given > 1 {
            self.error(path, "has rules of several protocols: give one");
        }
        self.refuse(path, "kafka", rules.kafka.is_some(), "was removed from the API");
        self.refuse(path, "l7proto", rules.l7proto.is_some(), "was removed from the API");
        self.refuse(path, "l7", rules.l7.is_some(), "was removed from the API");
        for (index, name) in rules.dns.iter().flatten().enumerate() {
            self.check_fqdn(name, &format!("{path}.dns[{index}]"));
        }
        for (index, rule) in rules.http.iter().flatten().enumerate() {
            self.check_http(rule, &format!("{path}.http[{index}]"));
        }
        given > 0
    }

    fn check_http(&mut self, rule: &Http, path: &str) {
        for (field, expression) in [("path", &rule.path), ("method", &rule.method), ("host", &rule.host)] {
            if let Some(expression) = expression {
                self.check_expression(expression, &format!("{path}.{field}"));
            }
        }
        for (index, header) in rule.header_matches.iter().flatten().enumerate() {
            self.check_header(header, &format!("{path}.headerMatches[{index}]"));
        }
    }

    fn check_expression(&mut self, expression: &str, path: &str) {
        let compiled = RegexBuilder::new(expression).size_limit(LARGEST_EXPRESSION).build();
        match compiled {
            Ok(_) => {}
            Err(regex::Error::CompiledTooBig(_)) => {
                self.error(
                    path,
                    format!("is too large for a regular expression: {LARGEST_EXPRESSION} bytes compiled"),
                );
            }
            Err(_) => self.error(path, format!("{expression:?} is no regular expression")),
        }
    }

    fn check_header(&mut self, header: &HeaderMatch, path: &str) {
        self.refuse(path, "name", header.name.is_empty(), "is empty");
        let secret_without_name = header.secret.as_ref().is_some_and(|secret| secret.name.is_empty());
        self.refuse(path, "secret.name", secret_without_name, "is empty");
        if let Some(mismatch) = header.mismatch.as_deref().filter(|name| !MISMATCHES.contains(name)) {
            let expected = MISMATCHES.join(", ");
            self.error(&format!("{path}.mismatch"), format!("{mismatch:?} is none of {expected}"));
        }
    }
}
