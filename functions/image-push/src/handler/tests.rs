//! The function against fakes of AWS' services.

mod arrivals;
mod boot;
mod central;
mod cloud;
mod commands;
mod usage;
