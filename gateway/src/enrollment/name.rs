//! The name a host gets: the one it asks for, or its host name made a valid one.

use super::EnrollmentError;
use crate::store::{Target, Token, WorkloadName};

/// The workload's name.
pub(super) fn of(token: &Token, requested: &str, hostname: &str) -> Result<WorkloadName, EnrollmentError> {
    if token.target.cluster_node().is_some() {
        return of_node(&token.target, requested);
    }
    if !requested.is_empty() {
        return checked(token.target.namespace(), requested);
    }
    if let Some(bound_to) = &token.bound_to {
        return Ok(bound_to.clone());
    }
    let made =
        made_valid(hostname).ok_or_else(|| EnrollmentError::Hostname(hostname.chars().take(64).collect()))?;
    checked(token.target.namespace(), &made)
}

/// The workload's name of a cluster node.
pub(super) fn of_node(target: &Target, requested: &str) -> Result<WorkloadName, EnrollmentError> {
    let node = target.cluster_node().unwrap_or_default();
    if !requested.is_empty() && requested != node {
        return Err(EnrollmentError::NodeName { node: node.to_owned() });
    }
    checked(target.namespace(), node)
}

fn checked(namespace: &str, name: &str) -> Result<WorkloadName, EnrollmentError> {
    WorkloadName::try_new(namespace, name)
        .map_err(|_invalid| EnrollmentError::Name(name.chars().take(64).collect()))
}

/// Lower case, `_` and blanks as `-`, without a final dot; `None` where that is not enough.
fn made_valid(hostname: &str) -> Option<String> {
    let lower = hostname.trim().trim_end_matches('.').to_lowercase();
    let made: String = lower.chars().map(|c| if c == '_' || c == ' ' { '-' } else { c }).collect();
    let made: Vec<&str> = made.split('.').map(|part| part.trim_matches('-')).collect();
    let made = made.join(".");
    // Names that many machines have from their image.
    let says_nothing = matches!(made.as_str(), "localhost" | "localhost.localdomain" | "debian" | "ubuntu");
    (pki::is_dns1123_subdomain(&made) && !says_nothing).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(target: Target, bound_to: Option<&str>) -> Token {
        Token {
            id: "t".to_owned(),
            secret_hash: String::new(),
            target,
            bound_to: bound_to.map(|name| name.parse().unwrap()),
            bound_key: None,
            created_at: 0,
            expires_at: 0,
            max_uses: 1,
            uses_left: 1,
            source_prefixes: Vec::new(),
            ephemeral: false,
            revoked: false,
            used_by: vec![],
        }
    }

    fn group() -> Target {
        Target::Group { namespace: "shop".to_owned(), name: "db".to_owned() }
    }

    #[test]
    fn host_names_become_valid_names() {
        let name = |host: &str| of(&token(group(), None), "", host).map(|name| name.to_string());
        assert_eq!(name("DB1").unwrap(), "shop/db1");
        assert_eq!(name("db_1.Example.COM.").unwrap(), "shop/db-1.example.com");
        assert_eq!(name("-db-").unwrap(), "shop/db");
        for unusable in ["", "localhost", "döner", "a..b", "../x", "a/b", &"a".repeat(64)] {
            let error = name(unusable).unwrap_err();
            assert!(error.to_string().contains("--name"), "{unusable}: {error}");
        }
    }

    #[test]
    fn a_name_asked_for_is_taken_as_it_is_or_refused() {
        assert_eq!(of(&token(group(), None), "db1", "x").unwrap().to_string(), "shop/db1");
        assert!(matches!(of(&token(group(), None), "DB1", "x"), Err(EnrollmentError::Name(_))));
        assert!(matches!(of(&token(group(), None), "a/ew/b", "x"), Err(EnrollmentError::Name(_))));
    }

    #[test]
    fn bound_tokens_and_cluster_nodes_have_their_name() {
        assert_eq!(of(&token(group(), Some("shop/db1")), "", "other").unwrap().to_string(), "shop/db1");
        let node = Target::TransitNode { node: "node-1".to_owned() };
        assert_eq!(
            of(&token(node.clone(), None), "", "other").unwrap().to_string(),
            "outrigger-system/node-1"
        );
        assert!(matches!(of(&token(node, None), "x", "x"), Err(EnrollmentError::NodeName { .. })));
    }
}
