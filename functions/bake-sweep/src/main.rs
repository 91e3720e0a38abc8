//! Removes leftovers of executions of bake-snapshot, and snapshots that are no longer wanted.

mod builders;
mod deletion;
mod error;
mod executions;
mod fast_restore;
mod handler;
mod listing;
mod message;
mod settings;
mod snapshot;
mod swept;
mod templates;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, log, settings::from_env};
use serde_json::Value;

use crate::{handler::BakeSweep, settings::Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let config = aws::config().await;
    let sweep = BakeSweep {
        // An account's launch templates take more calls than EC2 answers at once.
        ec2: aws_sdk_ec2::Client::new(&aws::patient_config().await),
        sfn: aws_sdk_sfn::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
        settings,
    };
    run(service_fn(|event: LambdaEvent<Value>| {
        aws::until(event.context.deadline(), sweep.handle(event.payload))
    }))
    .await
}
