//! The vocabulary of EKS image prefetch (image, rule, node, command, outcome, settings) and the only code that speaks SSM.

pub mod asked;
pub mod aws;
pub mod bake;
pub mod command;
pub mod custom_resource;
pub mod ecr;
pub mod fields;
pub mod image;
pub mod instance;
pub mod log;
pub mod metrics;
#[cfg(feature = "mocks")]
pub mod mocks;
pub mod node;
pub mod outcome;
pub mod report;
pub mod resolve;
pub mod retry;
pub mod rows;
pub mod rule;
pub mod sender;
pub mod settings;
pub mod ssm;
pub mod stack_name;
pub mod table;
pub mod unique_keys;
