//! The program `swarm`: agents without a kernel. Each joins with a token, has its own key, certificate and TLS
//! connection, and speaks with the agent's own transport and back-off; it acknowledges what it is sent without
//! applying it. Only the first of each group keeps its state, from which the others' digests are made too.

mod agent;
mod board;
mod joining;
mod known;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use board::Report;

use agent::Agent;
use board::Board;
use known::Known;

/// How often the report is looked at.
const REPORT: Duration = Duration::from_millis(20);
/// Agents that fetch their first state at a time.
const TURNS: usize = 64;

/// Agents in numbers. Reads `connect` from standard input once all have joined, and ends when that is closed.
#[derive(Clone, Debug, Parser)]
#[command(name = "swarm")]
pub struct Arguments {
    /// The gateway.
    #[arg(long)]
    gateway: SocketAddr,
    /// Where its metrics are.
    #[arg(long)]
    metrics: SocketAddr,
    /// How many agents.
    #[arg(long)]
    agents: u32,
    /// A file with a join token a line; agents take them in turn.
    #[arg(long)]
    tokens: PathBuf,
    /// The first underlay address that agents report.
    #[arg(long)]
    first: Ipv4Addr,
}

/// Joins, connects, and stays connected.
pub fn run(arguments: &Arguments) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<()> {
    let board = Arc::new(Board::new(arguments.agents));
    let mut tasks = JoinSet::new();
    tasks.spawn(board::print(Arc::clone(&board), REPORT));
    let tokens = std::fs::read_to_string(&arguments.tokens).context("the tokens")?;
    let tokens: Vec<_> = tokens.lines().map(proto::token::decode).collect::<Result<_, _>>()?;
    let members = joining::all(arguments, &tokens, &board).await?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    orders.next_line().await?.context("closed before the agents were to connect")?;
    let known: Vec<_> = tokens.iter().map(|_| Arc::new(Known::default())).collect();
    let turns = Arc::new(Semaphore::new(TURNS));
    for (index, member) in members.into_iter().enumerate() {
        let known = Arc::clone(known.get(index % known.len()).context("there are no tokens")?);
        let keeps = index < tokens.len();
        let agent = Agent::new(member, arguments.gateway, keeps, known, Arc::clone(&turns));
        tasks.spawn(agent.run(Arc::clone(&board)));
    }
    tasks.spawn(board::confirm(Arc::clone(&board), arguments.metrics));
    while orders.next_line().await?.is_some() {}
    Ok(())
}
