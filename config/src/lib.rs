//! One way of configuring every daemon: a YAML file, each key also a flag and an environment variable. What is
//! invalid is refused with file, position, key and value; unknown keys are.

mod file;
mod value;

pub use file::{InvalidFile, load, parse};
pub use value::{HostPort, InvalidHostPort, List, text};
