//! `token create|list|revoke`.

use clap::Subcommand;
use ipnet::IpNet;
use proto::v1;
use serde_json::json;

use super::connection::Arguments;
use super::failure::Failure;
use super::output::{self, Format};
use crate::config::Lasting;
use crate::store::WorkloadName;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Makes a token that hosts join with. It is shown once and kept hashed.
    #[command(after_help = "The token alone goes to standard output, so that it can be piped:\n  \
                      outrigger-gateway token create --group shop/db | ssh host sudo outrigger join --token-stdin")]
    Create {
        #[command(flatten)]
        target: Target,
        /// How long it is valid, such as 30m, 24h or 7d.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        ttl: Lasting,
        /// How many hosts may join with it.
        #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// Where hosts have to come from; may be given several times. [default: anywhere]
        #[arg(long = "source-cidr", value_name = "CIDR")]
        source_prefixes: Vec<IpNet>,
        /// Hosts that join with it are forgotten once they are away for half an hour.
        #[arg(long)]
        ephemeral: bool,
    },
    /// Lists tokens, also those that are used up, expired or revoked.
    List,
    /// Revokes a token. Hosts that joined with it stay.
    Revoke {
        /// The token's id, as in `token list`.
        id: String,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// The ExternalWorkloadGroup hosts become members of.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    group: Option<WorkloadName>,
    /// The cluster node that the host is, which forwards for its pods.
    #[arg(long, value_name = "NODE")]
    transit_node: Option<String>,
    /// The cluster node that the host is, which forwards for its pods by tunnels to transit nodes: hosts do not reach it.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let mut client = arguments.connection.connect().await?;
    let format = arguments.connection.output;
    match arguments.action {
        Action::Create { target, ttl, uses, source_prefixes, ephemeral } => {
            let request = v1::CreateTokenRequest {
                group: target.group.map(|group| group.to_string()).unwrap_or_default(),
                transit_node: target.transit_node.unwrap_or_default(),
                node: target.node.unwrap_or_default(),
                ttl_seconds: ttl_seconds(ttl)?,
                uses,
                source_prefixes: source_prefixes.iter().map(ToString::to_string).collect(),
                ephemeral,
            };
            show_token(&client.create_token(request).await?.into_inner(), format)
        }
        Action::List => {
            let tokens = client.list_tokens(v1::ListTokensRequest {}).await?.into_inner().tokens;
            show_tokens(&tokens, format)
        }
        Action::Revoke { id } => {
            client.revoke_token(v1::RevokeTokenRequest { id: id.clone() }).await?;
            match format {
                Format::Json => output::json(&json!({ "id": id, "revoked": true })),
                Format::Text => output::line(&format!("token {id} revoked")),
            }
        }
    }
}

/// Whole seconds, at least one.
pub(super) fn ttl_seconds(ttl: Lasting) -> Result<u64, Failure> {
    match ttl.0.as_secs() {
        0 => Err(Failure::Usage("a token is valid for at least 1s".to_owned())),
        seconds => Ok(seconds),
    }
}

/// Shows a new token: the secret on standard output, all else on standard error.
pub(super) fn show_token(token: &v1::CreateTokenResponse, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            output::json(&json!({ "id": token.id, "token": token.token, "expires": token.expires }))
        }
        Format::Text => {
            output::line(&token.token)?;
            output::note(&format!(
                "\nToken {} is valid until {}; it is not shown again. On the host, run\n\n    sudo outrigger join\n\nand \
                 paste it there. Revoke it with `outrigger-gateway token revoke {}`.",
                token.id,
                output::moment(token.expires),
                token.id
            ));
            Ok(())
        }
    }
}

fn show_tokens(tokens: &[v1::Token], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let tokens: Vec<_> = tokens.iter().map(as_json).collect();
        return output::json(&json!({ "tokens": tokens }));
    }
    let head = ["ID", "FOR", "USES LEFT", "EXPIRES", "REVOKED", "USED BY"];
    output::table(
        &head,
        tokens.iter().map(|token| {
            let target = match (&token.bound_to, &token.transit_node, &token.node) {
                (bound, ..) if !bound.is_empty() => format!("replacing {bound}"),
                (_, node, _) if !node.is_empty() => format!("transit node {node}"),
                (.., node) if !node.is_empty() => format!("node {node}"),
                _ => format!("group {}", token.group),
            };
            vec![
                token.id.clone(),
                target,
                token.uses_left.to_string(),
                output::moment(token.expires),
                if token.revoked { "yes" } else { "no" }.to_owned(),
                output::or_dash(token.used_by.join(", ")),
            ]
        }),
    )
}

fn as_json(token: &v1::Token) -> serde_json::Value {
    json!({
        "id": token.id,
        "group": token.group,
        "transitNode": token.transit_node,
        "node": token.node,
        "boundTo": token.bound_to,
        "created": token.created,
        "expires": token.expires,
        "usesLeft": token.uses_left,
        "revoked": token.revoked,
        "sourceCIDRs": token.source_prefixes,
        "ephemeral": token.ephemeral,
        "usedBy": token.used_by,
    })
}
