//! Why kernel state could not be had or changed.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use datapath::abi::Hook;
use hostnet::{ApplyError, Conflict, Refused};

use super::tables::TableError;
use crate::lock::LockError;

/// Why kernel state could not be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not do this.
    #[error(
        "{0} is missing: run as root, or with CAP_NET_ADMIN, CAP_BPF (CAP_SYS_ADMIN below Linux 5.8) and CAP_PERFMON"
    )]
    NotPermitted(&'static str),
    /// The kernel is too old or was built without something.
    #[error("this kernel ({running}) has no {feature}, which came with Linux {since}")]
    MissingFeature {
        /// What is missing.
        feature: &'static str,
        /// The version that has it, if it is configured.
        since: &'static str,
        /// The version that runs.
        running: String,
    },
    /// Packets of one CPU may preempt each other.
    #[error(
        "this kernel ({0}) is built with PREEMPT_RT, where packets of one CPU may preempt each other; the programs keep \
         what they work on per CPU and would mix them up"
    )]
    Realtime(String),
    /// The folder of the pins is on no bpffs.
    #[error(
        "{path} is on no BPF file system, so that nothing would outlive the agent; mount one there: \
             mount -t bpf bpf {path}"
    )]
    NoBpffs {
        /// The configured folder.
        path: PathBuf,
    },
    /// Another agent has the pins.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load the BPF object: {0}")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks something that this agent needs.
    #[error("the embedded BPF object has no {0}; it was built from other sources than this agent")]
    ObjectLacks(String),
    /// The verifier refused a program.
    #[error("this kernel refuses the program {program}: {reason}")]
    ProgramRefused {
        /// The program.
        program: String,
        /// What the kernel said, and the end of what the verifier said.
        reason: String,
    },
    /// A program could not be put on or taken off a hook.
    #[error("cannot attach {} to {device}: {reason}", hook.program())]
    Hook {
        /// The hook.
        hook: Hook,
        /// The device.
        device: String,
        /// What the system said.
        reason: String,
    },
    /// A map operation failed.
    #[error("cannot use the map {map}: {source}")]
    Map {
        /// The map.
        map: String,
        /// What the kernel said.
        source: MapError,
    },
    /// A table operation failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Links, addresses or routes could not be read.
    #[error("cannot {operation} through netlink: {source}")]
    Netlink {
        /// What was attempted.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that is not ours is in the way.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A change of links, addresses or routes was refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Prefixes that would cut the host off.
    #[error("{}", list(.0))]
    Unsafe(Vec<Refused>),
    /// The host has no address that tunnels could use, which a join needs.
    #[error("this host has no usable global address for tunnels; set `underlayAddresses`")]
    NoUnderlay,
    /// The reconcile task has ended.
    #[error("the owner of kernel state has stopped")]
    Stopped,
}

impl KernelError {
    /// Whether trying again can help without a new target.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Table(TableError::Full { .. }) | Self::Stopped => false,
            // What would cut the host off depends on its own network, which changes without the gateway.
            Self::Unsafe(_)
            | Self::NotPermitted(_)
            | Self::Realtime(_)
            | Self::MissingFeature { .. }
            | Self::NoBpffs { .. }
            | Self::Locked(_)
            | Self::File { .. }
            | Self::Object(_)
            | Self::ObjectLacks(_)
            | Self::ProgramRefused { .. }
            | Self::Hook { .. }
            | Self::Map { .. }
            | Self::Table(TableError::Refused { .. })
            | Self::Netlink { .. }
            | Self::Conflict(_)
            | Self::Apply(_)
            | Self::NoUnderlay => true,
        }
    }
}

fn list(refused: &[Refused]) -> String {
    let sentences: Vec<String> = refused.iter().map(ToString::to_string).collect();
    sentences.join("; ")
}

/// Says which program an error is about. The verifier says megabytes; the end tells why.
pub(super) fn on_program(program: &str) -> impl FnOnce(ProgramError) -> KernelError {
    const LINES: usize = 5;
    move |error| {
        let reason = if let ProgramError::LoadError { io_error, verifier_log } = &error {
            let log = verifier_log.to_string();
            let mut end: Vec<&str> = log.lines().rev().take(LINES).collect();
            end.reverse();
            format!("{io_error}; the verifier ends with: {}", end.join(" | "))
        } else {
            error.to_string()
        };
        KernelError::ProgramRefused { program: program.to_owned(), reason }
    }
}

/// Says which map an error is about.
pub(super) fn on_map(map: impl Into<String>) -> impl FnOnce(MapError) -> KernelError {
    let map = map.into();
    move |source| KernelError::Map { map, source }
}

/// Says which file operation an error is about.
pub(super) fn on_file(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.into();
    move |source| KernelError::File { operation, path, source }
}
