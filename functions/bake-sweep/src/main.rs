//! What executions of bake-snapshot leave behind, and snapshots that are no longer wanted, are removed.

mod error;
mod executions;
mod handler;
mod message;
mod settings;
mod snapshot;
mod templates;

use aws_sdk_ec2::config::{Builder, retry::RetryConfig};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, log, settings::from_env};
use serde_json::Value;

use crate::{handler::BakeSweep, settings::Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let config = aws::config().await;
    // An account's launch templates take more calls than EC2 answers at once.
    let ec2 = Builder::from(&config).retry_config(RetryConfig::standard().with_max_attempts(8));
    let sweep = BakeSweep {
        ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
        sfn: aws_sdk_sfn::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
        settings,
    };
    run(service_fn(|event: LambdaEvent<Value>| {
        aws::until(event.context.deadline(), sweep.handle(event.payload))
    }))
    .await
}
