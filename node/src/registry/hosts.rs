//! The hosts of a registry by `hosts.toml`: mirrors, their paths, headers and certificates.
