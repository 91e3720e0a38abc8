//! Doubt: whether SSM has a command that it did not confirm.

use std::cell::Cell;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::send_command::SendCommandError;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::FinalizerInterceptorContextRef},
        orchestrator::HttpResponse,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;

use super::error::SendError;

tokio::task_local! {
    /// Tells whether a try of the SDK's has ended without an answer that says what was done.
    static UNANSWERED: Cell<bool>;
}

/// Does work, and tells whether a try of a call in it ended in doubt, whatever became of the tries after it.
pub(super) async fn watched<T>(work: impl Future<Output = T>) -> (T, bool) {
    let work = async {
        let done = work.await;
        (done, UNANSWERED.with(Cell::get))
    };
    UNANSWERED.scope(Cell::new(false), Box::pin(work)).await
}

/// Marks the work that is [`watched`] where a try of it ends in doubt: the SDK's own answer is that of its last try.
#[derive(Debug)]
pub(super) struct Unanswered;

impl Intercept for Unanswered {
    fn name(&self) -> &'static str {
        "Unanswered"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Err(error)) = context.output_or_error() else {
            return Ok(());
        };
        let is_in_doubt = match error.as_operation_error() {
            Some(error) => {
                let code = error
                    .downcast_ref::<SendCommandError>()
                    .and_then(ProvideErrorMetadata::code);
                let failed = context
                    .response()
                    .is_some_and(|answer| answer.status().is_server_error());
                failed || code == Some(SERVER_ERROR)
            }
            None => error.as_connector_error().is_none_or(|failure| !failure.is_user()),
        };
        if is_in_doubt {
            // Work that nobody watches has nothing to mark.
            UNANSWERED.try_with(|mark| mark.set(true)).unwrap_or_default();
        }
        Ok(())
    }
}

/// The code by which SSM says that something went wrong on its side.
const SERVER_ERROR: &str = "InternalServerError";

impl SendError {
    /// Returns true where the command may be on its way for all that: no answer came, or none that says what was done.
    ///
    /// An answer of the last try counts for those before it, of which [`super::Delivery::is_in_doubt`] tells.
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
            answer.raw().status().is_server_error() || answer.err().code() == Some(SERVER_ERROR)
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
