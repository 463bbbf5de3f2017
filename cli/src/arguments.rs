//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

/// Above the options that stand behind the command's own in its help.
const GLOBAL: &str = "Global options";

/// Runs this host's part of a mesh of Kubernetes pods and hosts.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    propagate_version = true,
    after_help = "Examples:\n  outrigger join                      asks for the token\n  outrigger status\n  \
                  outrigger monitor --verdict dropped\n  outrigger policy trace --direction in --remote 10.244.0.7 \
                  --protocol tcp --port 5432\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 this host has not joined, 4 the agent is not \
                  running, 5 not permitted."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The agent's configuration file, which says where its socket is.
    #[arg(long, global = true, env = "OUTRIGGER_CONFIG", value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) config: Option<PathBuf>,
    /// The agent's socket, instead of the one of the configuration file.
    #[arg(long, global = true, env = "OUTRIGGER_SOCKET", value_name = "PATH", help_heading = GLOBAL)]
    pub(crate) socket: Option<PathBuf>,
    /// For a person, or for a program.
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = GLOBAL)]
    pub(crate) output: Format,
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines and tables.
    #[default]
    Text,
    /// JSON; `monitor` and `connectivity test` write one object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Join(Join),
    Leave(Leave),
    /// Shows what this host is in the mesh, and what it enforces.
    Status,
    Monitor(Monitor),
    /// The policies that select this host.
    #[command(subcommand)]
    Policy(Policy),
    /// The addresses of the mesh.
    #[command(subcommand)]
    Endpoint(Endpoint),
    /// Whether this host reaches the mesh.
    #[command(subcommand)]
    Connectivity(Connectivity),
    /// Whether policy on this host's NICs is enforced, or only reported for a time.
    #[command(subcommand)]
    Enforce(Enforce),
    /// Prepares this machine's disk to become an image: removes key, certificate, state and datapath.
    #[command(
        after_help = "The mesh is not told: run `outrigger leave` where the host itself goes away.\n\n\
                            Example:\n  outrigger seal && poweroff"
    )]
    Seal,
}

/// Joins the mesh with a one-time token.
#[derive(Debug, Args)]
#[command(
    after_help = "The token is asked for, or read with --token-file or --token-stdin. It is no argument: arguments\n\
                        show in the process list and stay in the shell's history.\n\n\
                        Examples:\n  outrigger join\n  outrigger join --token-file ./token --name db-1\n  \
                        outrigger-gateway token create --group shop/db | ssh root@host outrigger join --token-stdin\n  \
                        outrigger join --adopt              after restoring this machine from a copy"
)]
pub(crate) struct Join {
    /// Read the token from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "token_stdin")]
    pub(crate) token_file: Option<PathBuf>,
    /// Read the token from standard input.
    #[arg(long)]
    pub(crate) token_stdin: bool,
    /// The name of the external workload. [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Bind the existing state to this machine: it was restored here, and the original is gone. Needs no token.
    #[arg(long, conflicts_with_all = ["token_file", "token_stdin", "name"])]
    pub(crate) adopt: bool,
    /// Refused, with advice.
    #[arg(hide = true, num_args = 0.., allow_hyphen_values = false)]
    pub(crate) misplaced: Vec<String>,
    /// Refused, with advice.
    #[arg(long = "token", hide = true, num_args = 0..=1, default_missing_value = "")]
    pub(crate) misplaced_token: Option<String>,
}

/// Leaves the mesh and removes every trace from this host.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outrigger leave")]
pub(crate) struct Leave {
    /// Leave also when no gateway can be told; the workload then stays until it is deleted there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Shows verdicts as they happen, with the names of policies and remotes. Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  outrigger monitor\n  outrigger monitor --verdict dropped --verdict cut\n  \
                        outrigger monitor --direction in --port 5432 -o json"
)]
pub(crate) struct Monitor {
    /// Only these verdicts; may be repeated.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) verdict: Vec<Verdict>,
    /// Only this direction, seen from this host.
    #[arg(long, value_enum)]
    pub(crate) direction: Option<Direction>,
    /// Only this remote address or prefix.
    #[arg(long, value_name = "ADDRESS|CIDR")]
    pub(crate) remote: Option<Remote>,
    /// Only packets with this source or destination port.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Lists the rules that apply to this host.
    List {
        /// Those on the NICs, outside of the mesh, with what is never closed there.
        #[arg(long)]
        nic: bool,
    },
    Trace(Trace),
}

/// Says what would happen to a flow, and why: by the policy, and by the tables in the kernel.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  outrigger policy trace --direction in --remote 10.244.0.7 --protocol tcp --port 5432\n  \
                        outrigger policy trace --direction out --remote fd00::7 --protocol icmp\n  \
                        outrigger policy trace --nic --direction in --remote 192.0.2.7 --port 22"
)]
pub(crate) struct Trace {
    /// Who opens the flow: `in` the remote, `out` this host.
    #[arg(long, value_enum)]
    pub(crate) direction: Direction,
    /// The other end.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) remote: IpAddr,
    /// tcp, udp, sctp, icmp or a protocol number.
    #[arg(long, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// The destination port of the flow; needed for tcp, udp and sctp. For icmp the type, else an echo request.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// On the NICs, outside of the mesh. Nodes of the mesh are known there, and addresses, but no pods.
    #[arg(long)]
    pub(crate) nic: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enforce {
    /// Has it only reported for a time. Needs no gateway.
    #[command(after_help = "Example:\n  outrigger enforce audit --for 15m")]
    Audit {
        /// How long: `90s`, `15m`, `2h`.
        #[arg(long = "for", value_name = "TIME", default_value = "15m")]
        time: Time,
    },
    /// Has it enforced again.
    Resume,
}

/// A time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) u64);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a number and a unit: 90s, 15m, 2h";
        let unit = match text.chars().last() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            _ => return Err(FORM),
        };
        let number: u64 = text.get(..text.len() - 1).and_then(|number| number.parse().ok()).ok_or(FORM)?;
        number.checked_mul(unit).filter(|seconds| *seconds > 0).map(Self).ok_or(FORM)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Endpoint {
    /// Lists every address of the mesh with its identity, owner and tunnels.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connectivity {
    /// Tests the control connection, the tunnel both ways with full-size packets, a pod, and a refusal.
    #[command(after_help = "Exit code 1 if a check failed; each failure says what to look at.")]
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verdict {
    Allowed,
    Dropped,
    Audited,
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Toward this host.
    #[value(alias = "ingress")]
    In,
    /// From this host.
    #[value(alias = "egress")]
    Out,
}

impl Verdict {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Dropped => "dropped",
            Self::Audited => "audited",
            Self::Cut => "cut",
        }
    }
}

impl Direction {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::In => "ingress",
            Self::Out => "egress",
        }
    }
}

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote(pub(crate) IpNet);

impl FromStr for Remote {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net = text.parse::<IpNet>().or_else(|_no_prefix| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_neither| "neither an address nor a prefix")
    }
}

/// An IP protocol: a name, or a number as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol(pub(crate) String);

impl Protocol {
    pub(crate) fn has_ports(&self) -> bool {
        matches!(self.0.as_str(), "tcp" | "udp" | "sctp" | "6" | "17" | "132")
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        let known = matches!(name.as_str(), "tcp" | "udp" | "sctp" | "icmp" | "icmpv6");
        if known || name.parse::<u8>().is_ok() {
            Ok(Self(name))
        } else {
            Err("tcp, udp, sctp, icmp or a number")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("outrigger").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_token_as_argument_is_caught_where_it_stands() {
        for line in ["join ogr1_abc", "join --token ogr1_abc", "join --token=ogr1_abc", "join --token"] {
            let Command::Join(join) = parse(line).unwrap().command else { panic!("{line}") };
            assert!(!join.misplaced.is_empty() || join.misplaced_token.is_some(), "{line}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!("15m".parse(), Ok(Time(900)));
        assert_eq!("2h".parse(), Ok(Time(7200)));
        for text in ["", "15", "m", "0s", "-1s", "1d"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_read() {
        let line = "monitor --verdict dropped,cut --direction in --remote 10.0.0.0/8 --port 80 -o json";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.global.output, Format::Json);
        let Command::Monitor(monitor) = arguments.command else { panic!() };
        assert_eq!(monitor.verdict, [Verdict::Dropped, Verdict::Cut]);
        assert_eq!(monitor.direction, Some(Direction::In));
        assert_eq!(monitor.remote.unwrap().0.to_string(), "10.0.0.0/8");
        assert_eq!("fd00::1".parse::<Remote>().unwrap().0.to_string(), "fd00::1/128");
        assert!(parse("monitor --remote web").is_err());
        assert!(parse("policy trace --direction in --remote 10.0.0.1 --protocol nonsense").is_err());
    }
}
