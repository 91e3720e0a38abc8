//! Registries: manifests and configurations by digest, asked as containerd would ask, and nothing believed that its digest
//! does not stand for.

pub mod authorization;
pub mod blob;
pub mod byte_range;
mod certificates;
mod client;
mod connection;
pub mod endpoint;
pub mod hosts;
pub mod proxy;
pub mod question;
mod refusal;
mod registries;

pub use self::{question::DocumentKind, registries::Registries};

#[cfg(test)]
mod tests;
