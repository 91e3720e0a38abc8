//! The function against fakes of AWS' services.

mod builders;
mod cloud;
mod images;
mod inputs;
mod manifests;
mod plans;
mod services;
mod usage;

pub use self::manifests::setting;
