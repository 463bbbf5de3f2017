//! What every daemon shows of itself: logs, metrics, health, and how it is told to stop; and what it asks of the machine.

pub mod files;
pub mod health;
pub mod listener;
pub mod logging;
pub mod memory;
pub mod pulse;
pub mod service;
pub mod shutdown;
