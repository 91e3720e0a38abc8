//! The cluster's nodes: which SSM reaches, and what they hold.

mod agent;
mod answer;
pub mod clusters;
pub mod count;
pub mod list;
pub mod reachability;
pub mod sources;
