//! Room for images on the file systems of a node.

pub mod limits;
pub mod pinned;
pub mod room;
pub mod size;
