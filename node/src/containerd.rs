//! containerd's services and CRI's, over its socket: the calls that this program makes, and no others.

mod client;
pub mod config;
pub mod content;
pub mod cri;
pub mod images;
pub mod introspection;
pub mod inventory;
pub mod leases;
pub mod leftovers;
mod raw;
pub mod snapshots;
pub mod start;
pub mod write;

pub use self::client::{Containerd, LOOK_UP, SOCKET};
