//! The table's rows: their keys, and what they say of a job, of an image on a node, and of what a node holds.

mod counters;
mod held;
mod holding;
mod key;
mod more;
mod observed;
mod outcome;

pub use counters::Counters;
pub use held::{Failure, Held};
pub use holding::{Holding, Presence};
pub use key::{Item, Key, OBSERVED, OUTBOX_PARTITIONS, outbox_partition};
pub use more::{Brief, More};
pub use observed::Observed;
pub use outcome::Outcome;
