//! The API: what is requested, and what is answered.

pub mod answer;
pub mod problem;
pub mod query;
pub mod request;
