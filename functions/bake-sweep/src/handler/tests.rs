//! The function against fakes of AWS' services.

mod cloud;
mod ec2;
mod executions;
mod faults;
mod pruning;
mod services;
mod sfn;
mod ssm;
