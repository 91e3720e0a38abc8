//! Describes why the newest images cannot be told.

use aws_sdk_ecr::{
    error::SdkError,
    operation::{
        batch_get_image::BatchGetImageError, describe_images::DescribeImagesError,
        describe_repositories::DescribeRepositoriesError,
    },
};
use thiserror::Error;

use crate::{image::ImageError, named_images::NamedImagesError};

/// Tells why the newest images cannot be told.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// ECR did not list the repositories.
    #[error("the repositories could not be listed")]
    Repositories(#[source] Box<SdkError<DescribeRepositoriesError>>),
    /// ECR did not list a repository's images.
    #[error("the images of repository {0} could not be listed")]
    Images(String, #[source] Box<SdkError<DescribeImagesError>>),
    /// ECR did not give manifests.
    #[error("manifests of repository {0} could not be read")]
    Manifests(String, #[source] Box<SdkError<BatchGetImageError>>),
    /// ECR's answer names no usable image.
    #[error("an image of repository {0} cannot be named")]
    Image(String, #[source] ImageError),
    /// ECR takes longer than there is time.
    #[error("the images of {0} repositories could not be listed in {1} seconds")]
    Slow(usize, u64),
    /// The images that a rule names itself could not be read.
    #[error(transparent)]
    Named(#[from] NamedImagesError),
    /// Images that a rule names itself are not known.
    #[error("images that rule {0} names are not known: {1}")]
    Unresolved(String, String),
    /// The environment names no Region.
    #[error("no Region is set: AWS_REGION names the one whose registry is asked")]
    NoRegion,
}
