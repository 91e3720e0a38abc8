//! Configurations: for which platform an image is, and what its layers are once unpacked.

use sha2::{Digest, Sha256};

use super::{
    platform::Platform,
    read::{ManifestError, read},
    written,
};

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The platform; none where it is not told, or there is no root file system.
    pub platform: Option<Platform>,
    /// The digests of the unpacked layers, the lowest first.
    pub diff_ids: Vec<String>,
}

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Where the text is no configuration.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let written: written::Configuration = read(text)?;
        let (platform, diff_ids) = written.into_parts();
        Ok(Self { platform, diff_ids })
    }
}

/// Names the snapshots of layers, the lowest first: each stands for its layer and all below it (OCI image specification,
/// `ChainID`).
#[must_use]
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let next = chain.last().map_or_else(
            || diff_id.clone(),
            |below| digest_of(format!("{below} {diff_id}").as_bytes()),
        );
        chain.push(next);
    }
    chain
}

fn digest_of(bytes: &[u8]) -> String {
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), hex)
}
