//! Doubt: whether SSM has a command that it did not confirm.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::SendError;

impl SendError {
    /// Returns true where the command may be on its way for all that: no answer came, or none that says what was done.
    ///
    /// An answer of the last try counts for those before it.
    #[must_use]
    pub fn may_be_sent(&self) -> bool {
        if let Self::Send(error) = self {
            return is_unanswered(error);
        }
        if let Self::Record(error) = self {
            return is_unanswered(error);
        }
        matches!(self, Self::NoCommandId)
    }
}

fn is_unanswered<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => !failure.is_user(),
        SdkError::ServiceError(answer) => {
            answer.raw().status().is_server_error() || answer.err().code() == Some("InternalServerError")
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ssm::{error::ErrorMetadata, operation::send_command::SendCommandError};
    use aws_smithy_runtime_api::{client::result::ConnectorError, http::StatusCode};
    use aws_smithy_types::body::SdkBody;

    use super::*;

    #[test]
    fn only_a_refusal_says_that_nothing_was_sent() {
        let answered = |status: u16, code: &str| {
            let error = SendCommandError::generic(ErrorMetadata::builder().code(code).build());
            let raw = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty());
            SdkError::service_error(error, raw)
        };
        let raw = || HttpResponse::new(StatusCode::try_from(200).unwrap(), SdkBody::empty());
        for (error, may_be_sent) in [
            (SdkError::construction_failure("no document"), false),
            (answered(400, "ThrottlingException"), false),
            (answered(400, "AccessDeniedException"), false),
            (SdkError::dispatch_failure(ConnectorError::user("no uri".into())), false),
            (SdkError::dispatch_failure(ConnectorError::io("reset".into())), true),
            (SdkError::timeout_error("too late"), true),
            (SdkError::response_error("cut off", raw()), true),
            (answered(500, "InternalServerError"), true),
            (answered(503, "ServiceUnavailable"), true),
        ] {
            let error = SendError::Send(Box::new(error));
            assert_eq!(error.may_be_sent(), may_be_sent, "{error:?}");
        }
        assert!(SendError::NoCommandId.may_be_sent());
    }
}
