//! Bakes: the architectures a data volume is baked for, and the tags by which builders and snapshots are ours.

pub mod input;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error_text::word;

/// The tag that names the stack a builder or a snapshot belongs to.
pub const STACK_TAG: &str = "bake-snapshot/stack";
/// The tag that names the cluster it is for.
pub const CLUSTER_TAG: &str = "bake-snapshot/cluster";
/// The tag that names the execution that made it, by its ARN.
pub const EXECUTION_TAG: &str = "bake-snapshot/execution";
/// The tag that names the architecture it is for.
pub const ARCHITECTURE_TAG: &str = "bake-snapshot/architecture";
/// The tag that says when a snapshot was published; a snapshot without it is half-made.
pub const PUBLISHED_TAG: &str = "bake-snapshot/published";
/// The tag by which people keep a snapshot, whatever its value.
pub const KEEP_TAG: &str = "bake-snapshot/keep";

/// The size of Bottlerocket's own data volume, below which none is made, in GiB.
pub const MIN_GIB: u32 = 20;
/// The largest volume of type gp3, in GiB (EBS user guide).
pub const MAX_GIB: u32 = 16_384;

/// A processor architecture, in EC2's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// Intel and AMD.
    #[serde(rename = "x86_64")]
    X86,
    /// Graviton.
    #[serde(rename = "arm64")]
    Arm,
}

/// A text is no architecture that is baked for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is neither x86_64 nor arm64")]
pub struct ArchitectureError(String);

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 2] = [Self::X86, Self::Arm];
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&word(self))
    }
}

impl FromStr for Architecture {
    type Err = ArchitectureError;

    fn from_str(text: &str) -> Result<Self, ArchitectureError> {
        let known = Self::ALL.into_iter().find(|known| known.to_string() == text);
        known.ok_or_else(|| ArchitectureError(text.to_owned()))
    }
}
