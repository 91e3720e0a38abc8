//! The vocabulary of EKS image prefetch (image, rule, node, command, outcome, settings) and the only code that speaks SSM.

pub mod asked;
pub mod aws;
pub mod bake;
pub mod command;
#[cfg(feature = "ecr")]
pub mod ecr;
pub mod fields;
pub mod image;
#[cfg(feature = "ec2")]
pub mod instance;
pub mod log;
pub mod node;
pub mod outcome;
pub mod report;
#[cfg(feature = "ecr")]
pub mod resolve;
pub mod retry;
#[cfg(feature = "rows")]
pub mod rows;
pub mod rule;
pub mod settings;
pub mod ssm;
#[cfg(feature = "rows")]
pub mod table;
pub mod unique_keys;
