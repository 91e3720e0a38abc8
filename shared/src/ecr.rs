//! Describes which images a rule names now: the newest of each of its repositories, as ECR tells.

mod error;
mod listing;
mod manifests;
mod newest_images;
mod registries;

pub use error::ImagesError;
pub use manifests::{ManifestKind, image_detail, manifests, warn_unread};
pub use newest_images::{Newest, NewestImages};
pub use registries::{Registries, Registry};
