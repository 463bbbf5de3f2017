//! Threats 23 to 30 of `docs/security.md`: packets that mean to be read in another way than they are delivered. What
//! the programs decide is shown in the kernel and in the host build at once; what the kernel makes of frames before
//! and after, with real ones.

#[path = "threats_datapath/bytes.rs"]
mod bytes;
#[path = "threats_datapath/frames.rs"]
mod frames;
