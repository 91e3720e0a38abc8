//! Answers of SSM.

use aws_sdk_ssm::{
    config::{BehaviorVersion, Credentials, Region},
    error::ErrorMetadata,
    operation::send_command::SendCommandError,
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};

use crate::aws::{CALL, InvocationSleep, timeouts};

/// IAM's answer to a SendCommand that it does not permit on this instance.
#[must_use]
pub fn access_denied(instance: &str) -> SendCommandError {
    let message = format!(
        "User: arn:aws:sts::123456789012:assumed-role/function/i-0aaaaaaaaaaaaaaaa is not authorized to perform: \
         ssm:SendCommand on resource: arn:aws:ec2:eu-central-1:123456789012:instance/{instance} because no identity-based \
         policy allows the ssm:SendCommand action"
    );
    let error = ErrorMetadata::builder().code("AccessDeniedException").message(message);
    SendCommandError::generic(error.build())
}

/// Returns a client of SSM whose calls nobody answers: they end with the invocation ([`crate::aws::within`]).
#[must_use]
pub fn silent_ssm() -> aws_sdk_ssm::Client {
    #[derive(Debug)]
    struct Silence;
    impl HttpConnector for Silence {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            HttpConnectorFuture::new(std::future::pending())
        }
    }
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "mocks"))
        .http_client(http_client_fn(|_, _| SharedHttpConnector::new(Silence)))
        .timeout_config(timeouts(CALL))
        .sleep_impl(InvocationSleep);
    aws_sdk_ssm::Client::from_conf(config.build())
}
