//! Rules: which images go to which nodes.

mod globs;
mod model;
mod reader;
#[cfg(test)]
mod tests;

pub use globs::Globs;
pub use model::{IMAGES_MAX, MAX_NODE_TAGS, MAX_TAG_VALUES, Order, Rule};
pub use reader::{RuleError, is_name, is_tag_key, parse_rules};
