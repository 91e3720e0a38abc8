//! Boot lists: what the nodes of a rule pull while they boot, before kubelet starts.
//!
//! Each rule has an SSM parameter, which its nodes' user data reads (`examples/boot`), and a second one where the first has no
//! room for all. They hold what `node-launch` would send to a new node: the images, and the other parameters of the document.

mod list;
mod lists;
mod store;

pub use list::BootList;
pub use lists::{BootLists, Decision, Kept};
pub use store::{BootError, Stored};
