//! Reachability: whether SSM reaches a node, and why not.

use aws_sdk_ssm::types::{InstanceInformation, PlatformType};
use thiserror::Error;

use crate::ssm::is_online;

/// Tells why commands do not reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// SSM has never heard of it.
    #[error("it has not registered with SSM")]
    NotRegistered,
    /// The document is for Linux.
    #[error("it is no Linux node")]
    NotLinux,
    /// SSM has heard nothing of it for a while.
    #[error("SSM has lost the connection to it")]
    ConnectionLost,
    /// EKS Auto Mode lets nobody in (see [`crate::instance::is_auto_mode`]).
    #[error("EKS Auto Mode manages the instance and allows no SSM")]
    AutoMode,
}

/// Tells by what SSM knows of a node if it reaches the node now.
///
/// # Errors
/// [`Unreachable`] where it does not.
pub fn connection(managed: Option<&InstanceInformation>) -> Result<(), Unreachable> {
    let node = managed.ok_or(Unreachable::NotRegistered)?;
    let platform = node.platform_type();
    if platform.is_some_and(|platform| *platform != PlatformType::Linux) {
        Err(Unreachable::NotLinux)
    } else if is_online(node) {
        Ok(())
    } else {
        Err(Unreachable::ConnectionLost)
    }
}
