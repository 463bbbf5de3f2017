//! The tree builds anywhere: nothing in it names a place of the machine that it was written on.

use anyhow::Result;

use super::Finding;
use crate::workspace;

/// What no file may contain, and why. Written in two parts, so that this file passes its own gate.
const FORBIDDEN: [(&str, &str); 8] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/home", "/runner"), "a path of one machine"),
    (concat!("../sh", "ared"), "a folder outside the tree"),
    (concat!("deb.deb", "ian.org"), "a registry's host: the machine's own sources name it"),
    (concat!("archive.ub", "untu.com"), "a registry's host: the machine's own sources name it"),
    (concat!("static.cra", "tes.io"), "a registry's host: cargo's configuration names it"),
    (concat!("index.cra", "tes.io"), "a registry's host: cargo's configuration names it"),
];

pub(super) fn check() -> Result<Vec<Finding>> {
    Ok(workspace::files()?.iter().flat_map(|file| forbidden(&file.name(), &file.text)).collect())
}

fn forbidden(name: &str, text: &str) -> Vec<Finding> {
    let lines = (1_usize..).zip(text.lines());
    let found = lines.flat_map(|(number, line)| {
        let patterns = FORBIDDEN.into_iter().filter(move |(pattern, _)| names(line, pattern));
        patterns.map(move |(pattern, reason)| {
            Finding::new(format!("{name}:{number}"), format!("`{pattern}`: {reason}"))
        })
    });
    found.collect()
}

/// Whether the line has the pattern; an absolute path not as the tail of a longer one (`/proc/1/root/…`).
fn names(line: &str, pattern: &str) -> bool {
    let inside_a_path = |c: char| c.is_alphanumeric() || "}/_-.*".contains(c);
    line.match_indices(pattern).any(|(start, _)| {
        !pattern.starts_with('/') || !line.get(..start).is_some_and(|before| before.ends_with(inside_a_path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forbidden_name_is_found_with_its_line() {
        for (pattern, _) in FORBIDDEN {
            let findings = forbidden("a.md", &format!("fine\nsee {pattern}x\n"));
            assert_eq!(findings.first().map(|finding| finding.place.as_str()), Some("a.md:2"), "{pattern}");
        }
        assert_eq!(forbidden("a.md", concat!("cd /tmp/work; framework/x; /proc/{pid}/ro", "ot/run\n")), []);
    }
}
