//! `outrigger join`.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use proto::v1::{AgentJoinRequest, JoinProgress, JoinResult};
use serde_json::json;
use zeroize::Zeroizing;

use crate::arguments::{Format, Join};
use crate::connection::Client;
use crate::failure::Failure;
use crate::output;

/// Longer than any token; what is longer is another file.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Reads the token from where the arguments say.
pub(crate) fn request(join: &Join) -> Result<AgentJoinRequest, Failure> {
    if !join.misplaced.is_empty() || join.misplaced_token.is_some() {
        return Err(Failure::Usage(
            "a token is no argument: arguments show in the process list and stay in the shell's history.\n\
             Run `outrigger join` to be asked for it, or use --token-file FILE or --token-stdin. A token that was given \
             as an argument should be revoked"
                .to_owned(),
        ));
    }
    let token = if join.adopt { Zeroizing::new(String::new()) } else { token(join)? };
    Ok(AgentJoinRequest {
        token: token.trim().to_owned(),
        name: join.name.clone().unwrap_or_default(),
        adopt: join.adopt,
    })
}

fn token(join: &Join) -> Result<Zeroizing<String>, Failure> {
    if let Some(path) = &join.token_file {
        let fail = |error| Failure::Usage(format!("reading the token from {}: {error}", path.display()));
        return read(std::fs::File::open(path).map_err(fail)?).map_err(fail);
    }
    if join.token_stdin {
        let fail = |error| Failure::Usage(format!("reading the token from standard input: {error}"));
        return read(std::io::stdin().lock()).map_err(fail);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask for the token: use --token-stdin or --token-file FILE".to_owned(),
        ));
    }
    let asked = rpassword::prompt_password("Join token: ");
    asked.map(Zeroizing::new).map_err(|error| Failure::Usage(format!("asking for the token: {error}")))
}

fn read(source: impl std::io::Read) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    source.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Joins, showing each step, and ends with what now applies to this host.
pub(crate) async fn run(
    mut client: Client,
    request: AgentJoinRequest,
    format: Format,
) -> Result<(), Failure> {
    let mut steps = client.join(request).await?.into_inner();
    let progress = Progress::start();
    let mut result = None;
    while let Some(JoinProgress { step, result: last }) = steps.message().await? {
        if !step.is_empty() {
            progress.step(&step);
        }
        result = last.or(result);
    }
    progress.end();
    let result =
        result.ok_or_else(|| Failure::Failed("the agent stopped before the join was complete".to_owned()))?;
    match format {
        Format::Json => output::json(&as_json(&result)),
        Format::Text => as_text(&result).iter().try_for_each(|line| output::line(line)),
    }
}

/// The steps on standard error: a spinner on a terminal, plain lines elsewhere.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn start() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").ok();
        let bar = ProgressBar::new_spinner().with_message("joining");
        if let Some(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    fn step(&self, step: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| output::note(&format!("✓ {step}"))),
            None => output::note(step),
        }
    }

    fn end(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

fn as_json(result: &JoinResult) -> serde_json::Value {
    json!({
        "workload": result.workload,
        "meshAddresses": result.mesh_addresses,
        "identity": result.identity,
        "policies": result.policies,
        "ingressDefaultDeny": result.ingress_default_deny,
        "egressDefaultDeny": result.egress_default_deny,
        "elapsedMs": result.elapsed_ms,
    })
}

fn as_text(result: &JoinResult) -> Vec<String> {
    let seconds = Duration::from_millis(result.elapsed_ms).as_secs_f64();
    let mut lines = vec![format!(
        "This host is {} (identity {}) at {}, after {seconds:.1} s.",
        result.workload,
        result.identity,
        result.mesh_addresses.join(" and ")
    )];
    if result.policies.is_empty() {
        lines.push("No policy selects it.".to_owned());
    } else {
        lines.push("Policies that select it:".to_owned());
        lines.extend(result.policies.iter().map(|policy| format!("  {policy}")));
    }
    lines.push(match (result.ingress_default_deny, result.egress_default_deny) {
        (true, true) => "Ingress and egress are default-deny: only what a policy allows passes.".to_owned(),
        (true, false) => {
            "Ingress is default-deny: only what a policy allows comes in. Egress is open.".to_owned()
        }
        (false, true) => {
            "Egress is default-deny: only what a policy allows goes out. Ingress is open.".to_owned()
        }
        (false, false) => {
            "Neither direction is default-deny: the mesh reaches this host and it the mesh.".to_owned()
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> Join {
        Join {
            token_file: None,
            token_stdin: false,
            name: None,
            adopt: false,
            misplaced: Vec::new(),
            misplaced_token: None,
        }
    }

    #[test]
    fn a_misplaced_token_is_refused_without_repeating_it() {
        for given in [
            Join { misplaced: vec!["ogr1_secret".to_owned()], ..join() },
            Join { misplaced_token: Some("ogr1_secret".to_owned()), ..join() },
        ] {
            let Err(Failure::Usage(text)) = request(&given) else { panic!("accepted") };
            assert!(text.contains("--token-file") && text.contains("--token-stdin"), "{text}");
            assert!(!text.contains("ogr1_secret"), "{text}");
        }
    }

    #[test]
    fn a_token_file_is_read_without_white_space_and_a_missing_one_named() {
        let folder = std::env::temp_dir().join(format!("outrigger-join-{}", std::process::id()));
        std::fs::write(&folder, "  ogr1_abc\n").unwrap();
        let given = Join { token_file: Some(folder.clone()), name: Some("db".to_owned()), ..join() };
        let request_made = request(&given).unwrap();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!((request_made.token.as_str(), request_made.name.as_str()), ("ogr1_abc", "db"));
        let Err(Failure::Usage(text)) = request(&given) else { panic!("accepted") };
        assert!(text.contains(&folder.display().to_string()), "{text}");
    }

    #[test]
    fn adopting_needs_no_token() {
        let request = request(&Join { adopt: true, ..join() }).unwrap();
        assert!(request.adopt && request.token.is_empty());
    }

    #[test]
    fn the_end_says_which_directions_are_closed() {
        let result = JoinResult {
            workload: "shop/db".to_owned(),
            policies: vec!["NetworkPolicy/shop/db".to_owned()],
            ingress_default_deny: true,
            ..JoinResult::default()
        };
        let text = as_text(&result).join("\n");
        assert!(text.contains("NetworkPolicy/shop/db") && text.contains("Ingress is default-deny"), "{text}");
    }
}
