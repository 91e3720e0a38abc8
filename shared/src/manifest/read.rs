//! Describes how manifests and configurations are read: within bounds.

use thiserror::Error;

/// The largest manifest or configuration that is read, in bytes. containerd reads as much of a manifest (`remotes/docker`,
/// `MaxManifestSize`), and ECR keeps half of it.
pub const MAX_BYTES: usize = 8 << 20;
/// Sets through how many indexes an image is looked for.
pub const MAX_DEPTH: usize = 3;
/// The largest size of a part, in bytes, that a manifest is believed.
pub(super) const MAX_PART: u64 = 10_000_000_000_000;
/// The largest sum of sizes, in bytes, that is counted.
pub(super) const MAX_TOTAL: u64 = 999_999_999_999_999;

/// Tells why a text is no manifest, index or configuration.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It is longer than any that is read.
    #[error("{0} bytes are more than {MAX_BYTES}")]
    TooLong(usize),
    /// It is not JSON of that shape.
    #[error("it is no manifest")]
    Shape(#[from] serde_json::Error),
}

/// Adds sizes up to the largest sum that is counted.
pub(super) fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, |sum, size| sum.saturating_add(size).min(MAX_TOTAL))
}

pub(super) fn read<T: for<'de> serde::Deserialize<'de>>(text: &[u8]) -> Result<T, ManifestError> {
    if text.len() > MAX_BYTES {
        return Err(ManifestError::TooLong(text.len()));
    }
    Ok(serde_json::from_slice(text)?)
}
