//! The vocabulary of EKS image prefetch (image, rule, node, command, outcome, settings) and the only code that speaks SSM.

pub mod aws;
pub mod command;
pub mod image;
pub mod log;
pub mod node;
pub mod outcome;
pub mod report;
pub mod retry;
pub mod rule;
pub mod settings;
pub mod ssm;
mod unique_keys;
