//! The function as a whole before mocked AWS services.

mod boot;
mod cancel;
pub mod cloud;
mod events;
mod idempotency;
mod lost_answers;
mod nodes_by_id;
mod observed;
mod reconcile;
mod requested_by;
mod status;
mod submit;
mod tags;
mod usage;
