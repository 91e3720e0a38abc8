//! Puts container images on a node before pods need them: what the Command document runs as root.
//!
//! One command reads its parameters, looks which of its images containerd holds, and pulls the rest through the call that
//! kubelet itself makes. It prints one line of JSON for each image. Another kind of command names tags, and prints which digest
//! each of them stands for.

pub mod boots;
pub mod command;
pub mod containerd;
pub mod context;
pub mod description;
pub mod disk;
pub mod failure;
pub mod file_system;
pub mod glob;
pub mod host;
pub mod keep;
pub mod kubelet;
pub mod lock;
pub mod login;
pub mod naming;
pub mod parameters;
pub mod pull;
pub mod queue;
pub mod registry;
pub mod report;
pub mod resolve;
pub mod run;
mod settle;
pub mod systemd;
pub mod time;
pub mod toml;
pub mod usage;
pub mod yaml;
