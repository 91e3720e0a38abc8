//! Describes what became of jobs, and how they are cancelled.

pub mod cancel;
pub mod command;
pub mod get;
pub mod job;
pub mod list;
mod node;
pub mod sources;
pub mod stats;
