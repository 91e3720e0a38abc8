//! Image references: what a node is asked to hold.

mod kind;
mod name;
mod reference;
mod registry;
mod tagged;
#[cfg(test)]
mod tests;

pub use kind::{CONFIGURATIONS, CachedLayer, Kind, MANIFEST_MEDIA_TYPES, is_image, not_an_image_tag};
pub use name::{ImageError, check_name, is_digest};
pub use reference::Image;
pub use registry::{RegistryEndpoint, ecr_account, ecr_region, ecr_registry, is_same_registry};
pub use tagged::TaggedImage;
