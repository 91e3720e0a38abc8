//! The function against fakes of AWS' services.

mod arrivals;
mod boot;
mod cloud;
mod commands;
mod usage;
