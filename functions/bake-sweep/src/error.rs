//! Errors: why not all was swept, by the words that the state machine and the alarm know.

use aws_sdk_ec2::{
    error::SdkError,
    operation::{
        describe_fast_snapshot_restores::DescribeFastSnapshotRestoresError, describe_instances::DescribeInstancesError,
        describe_launch_template_versions::DescribeLaunchTemplateVersionsError,
        describe_launch_templates::DescribeLaunchTemplatesError, describe_snapshots::DescribeSnapshotsError,
    },
};
use aws_sdk_ssm::operation::get_parameters::GetParametersError;
use lambda_runtime::Diagnostic;
use prefetch::{error_text::error_text, fields::FieldError};
use thiserror::Error;

/// Tells why not all was swept.
#[derive(Debug, Error)]
pub enum SweepError {
    /// Nothing of the kind can be asked for: a retry ends the same way.
    #[error("not accepted: {0}")]
    BadRequest(String),
    /// Some of what is to go is still there.
    #[error("not all could be swept: {0}")]
    Incomplete(String),
    /// AWS could not be asked what there is; a retry may fare better.
    #[error(transparent)]
    Aws(#[from] AwsError),
}

/// Tells why AWS could not be asked what there is.
#[derive(Debug, Error)]
pub enum AwsError {
    /// EC2 did not list the builders.
    #[error("the builders could not be listed")]
    Builders(#[source] Box<SdkError<DescribeInstancesError>>),
    /// EC2 did not list the snapshots.
    #[error("the snapshots could not be listed")]
    Snapshots(#[source] Box<SdkError<DescribeSnapshotsError>>),
    /// SSM did not tell which snapshots are published.
    #[error("the parameters that name the published snapshots could not be read")]
    Published(#[source] Box<SdkError<GetParametersError>>),
    /// EC2 did not tell for which snapshots fast restore is enabled.
    #[error("it could not be told for which snapshots fast restore is enabled")]
    FastRestores(#[source] Box<SdkError<DescribeFastSnapshotRestoresError>>),
    /// EC2 did not list the launch templates.
    #[error("the launch templates could not be listed")]
    Templates(#[source] Box<SdkError<DescribeLaunchTemplatesError>>),
    /// An answer lacks what it is asked for: it is no evidence that there is none.
    #[error("the answer to {0} lacks {1}, so that nothing is removed that hangs on it")]
    HalfAnswer(&'static str, String),
    /// EC2 did not list a launch template's versions.
    #[error("the versions of the launch template {0} could not be listed")]
    Versions(String, #[source] Box<SdkError<DescribeLaunchTemplateVersionsError>>),
}

/// Takes the list that an answer has to have, be it empty.
///
/// # Errors
/// [`AwsError::HalfAnswer`] where it lacks the list.
pub fn listed<T>(call: &'static str, list: Option<Vec<T>>) -> Result<Vec<T>, AwsError> {
    list.ok_or_else(|| AwsError::HalfAnswer(call, "its list".to_owned()))
}

impl From<Vec<FieldError>> for SweepError {
    fn from(errors: Vec<FieldError>) -> Self {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self::BadRequest(errors.join("; "))
    }
}

impl From<SweepError> for Diagnostic {
    fn from(error: SweepError) -> Self {
        let error_type = match &error {
            SweepError::BadRequest(_) => "BadRequest",
            SweepError::Incomplete(_) => "SweepIncomplete",
            SweepError::Aws(_) => "AwsError",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error_text(&error),
        }
    }
}
