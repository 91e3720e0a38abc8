//! For tests: services that remember what they are told and fail where they are told to, the table among them.
#![allow(
    clippy::missing_panics_doc,
    reason = "a test that meets what it does not expect ends"
)]

mod calls;
mod dynamodb;
pub mod ecr;
pub mod parameters;
pub mod settings;
mod ssm;
mod tags;
pub mod time;
mod usage;

pub use calls::Calls;
pub use dynamodb::{Table, dynamodb};
pub use ssm::{access_denied, silent_ssm};
pub use tags::{Tags, tag_resolver};
pub use usage::{note_named, note_use, ran};

/// An error as a service answers it that does not say more than a code.
#[macro_export]
macro_rules! fault {
    ($service:ident, $error:ident, $code:expr) => {
        aws_smithy_mocks::MockResponse::Error($error::generic(
            $service::error::ErrorMetadata::builder()
                .code($code)
                .message("User: arn:aws:sts::123456789012:assumed-role/function is not let")
                .build(),
        ))
    };
}
