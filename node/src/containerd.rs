//! containerd's services and CRI's, over its socket: the calls that this program makes, and no others.

pub mod config;
pub mod content;
pub mod cri;
pub mod images;
pub mod inventory;
pub mod leases;
pub mod snapshots;

use std::path::Path;

/// The namespace in which CRI keeps its images.
pub const NAMESPACE: &str = "k8s.io";

/// A connection to containerd, or to another server of CRI's image service; cheap to clone.
///
/// It is made when it is needed, and made anew where containerd was started anew. Each call has a time limit of its own
/// (`LOOK_UP`, but for a pull) and ends when its future is dropped.
#[derive(Clone, Debug)]
pub struct Containerd {
    channel: tonic::transport::Channel,
}

impl Containerd {
    /// Names the socket; nothing is asked yet.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        todo!()
    }
}
