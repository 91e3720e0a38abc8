//! Manifests: what an image is made of, for which platform, and what it takes on a disk.
//!
//! They are read as containerd reads them, and come from a registry that may be anyone's: all is bounded, and what is not
//! believed counts nothing.

mod configuration;
mod content;
mod disk;
mod index;
mod platform;
mod read;
#[cfg(test)]
mod tests;
mod written;

pub use self::{
    configuration::{Configuration, chain_ids},
    content::{Content, Layer, Manifest, Runtime},
    disk::{bytes_on_disk, missing_bytes},
    index::{Entry, Index},
    platform::{Platform, PlatformMatcher},
    read::{MAX_BYTES, MAX_DEPTH, ManifestError},
};
