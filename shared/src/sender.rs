//! Sending: the one place from which commands go to nodes, and where they end in a stack that observes.
//!
//! Only [`Sender`] makes a SendCommand request, and where the stack observes it has no client of SSM to make one with.

mod client;
mod delivery;
mod doubt;
mod error;
mod observer;
mod order;
mod request;
#[cfg(all(test, feature = "mocks"))]
mod tests;

pub use client::Sender;
pub use delivery::{Delivery, Refusal};
pub use error::SendError;
pub use order::Order;
pub(crate) use request::handling;
