//! One way of configuring every daemon: a YAML file, each key also a flag and an environment variable. What is
//! invalid is refused with file, position, key and value; unknown keys are. And the socket that each is administered by.

mod file;
mod socket;
mod value;

pub use file::{InvalidFile, load, parse};
pub use socket::{SocketError, bind_socket};
pub use value::{HostPort, InvalidHostPort, List, text};
