//! The function against fakes of AWS' services.

mod batches;
mod claims;
mod cloud;
mod commands;
mod inputs;
mod launches;
mod retries;
mod services;
mod usage;
