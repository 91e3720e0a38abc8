//! The table's rows: their keys, and what they say of a job, of an image on a node, and of what a node holds.

mod brief;
mod counters;
mod entry;
mod inventory;
mod key;
mod node_set;
mod observed;
mod outcome;
mod usage;

pub use brief::{BriefEntries, BriefEntry};
pub use counters::Counters;
pub use entry::{Entry, Presence};
pub use inventory::{Failure, Inventory};
pub use key::{Item, Key, OBSERVED, OUTBOX_PARTITIONS, outbox_partition, usage_partition};
pub use node_set::NodeSet;
pub use observed::Observed;
pub use outcome::Outcome;
pub use usage::{UsageDay, UsageRow};
