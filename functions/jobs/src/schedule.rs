//! Schedules: jobs that are submitted again and again, or once later.

pub mod create;
pub mod cron;
mod definition;
pub mod delete;
pub mod list;
mod name;
mod request;
pub mod scheduler;
#[cfg(test)]
mod tests;
