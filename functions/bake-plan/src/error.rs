//! Errors: why there is no plan, by the words that the state machine knows.

use aws_sdk_ec2::{
    error::SdkError,
    operation::{describe_instances::DescribeInstancesError, describe_subnets::DescribeSubnetsError},
};
use aws_sdk_ecr::operation::batch_get_image::BatchGetImageError;
use lambda_runtime::Diagnostic;
use prefetch::{
    bake::input::InputError, ecr::ImagesError, error_text::error_text, fields::FieldError, manifest::ManifestError,
    resolve::ResolveError, tags::TagsError, usage::UsageError,
};
use thiserror::Error;

/// Tells why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Something of the input is not accepted: a retry ends the same way.
    #[error("not accepted: {0}")]
    BadInput(String),
    /// So many images have no room: fewer may.
    #[error("not accepted: {0}")]
    TooMany(String),
    /// Nothing tells which architectures to bake for.
    #[error(
        "no node that the rules {0} select is running, so that it cannot be told which architectures to bake for: set architectures, such as [\"x86_64\"]"
    )]
    NoArchitecture(String),
    /// There is nothing to bake.
    #[error("{0}")]
    NoImages(String),
    /// AWS could not be asked; a retry may fare better.
    #[error(transparent)]
    Aws(#[from] AwsError),
}

/// Tells why AWS could not be asked.
#[derive(Debug, Error)]
pub enum AwsError {
    /// EC2 did not list the nodes.
    #[error("the running nodes could not be listed")]
    Instances(#[source] Box<SdkError<DescribeInstancesError>>),
    /// EC2 did not describe the subnets.
    #[error("the cluster's subnets could not be described")]
    Subnets(#[source] Box<SdkError<DescribeSubnetsError>>),
    /// ECR did not name the rules' newest images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The table did not tell what nodes run.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// ECR did not tell what the images asked for are.
    #[error(transparent)]
    Resolve(ResolveError),
    /// No node told what tags of other registries are.
    #[error(transparent)]
    Tags(Box<TagsError>),
    /// ECR did not give manifests.
    #[error("manifests of repository {0} could not be read")]
    Manifests(String, #[source] Box<SdkError<BatchGetImageError>>),
    /// ECR gave all manifests but one.
    #[error("the manifest {0} could not be read: {1}")]
    Manifest(String, String),
    /// A manifest is none.
    #[error("the manifest {0} cannot be understood")]
    Malformed(String, #[source] ManifestError),
}

impl From<InputError> for PlanError {
    fn from(error: InputError) -> Self {
        Self::BadInput(error.to_string())
    }
}

impl From<Vec<FieldError>> for PlanError {
    fn from(errors: Vec<FieldError>) -> Self {
        InputError::from(errors).into()
    }
}

impl From<FieldError> for PlanError {
    fn from(error: FieldError) -> Self {
        vec![error].into()
    }
}

impl From<ResolveError> for PlanError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotAccepted(errors) => errors.into(),
            error => AwsError::Resolve(error).into(),
        }
    }
}

impl From<PlanError> for Diagnostic {
    fn from(error: PlanError) -> Self {
        let error_type = match &error {
            PlanError::BadInput(_) | PlanError::TooMany(_) => "BadInput",
            PlanError::NoArchitecture(_) => "NoArchitecture",
            PlanError::NoImages(_) => "NoImages",
            PlanError::Aws(_) => "AwsError",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error_text(&error),
        }
    }
}
