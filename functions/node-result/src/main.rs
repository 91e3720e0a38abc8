//! What a node reported becomes job status, statistics, records, metrics, or one more try.

mod boots;
mod changes;
#[cfg(test)]
mod cloud;
mod decision;
mod effects;
mod event;
mod gate;
mod handler;
mod inventory;
mod launch_hook;
mod metrics;
mod node_state;
mod observation;
mod records;
mod report;
mod retry;
mod rows;
mod settings;
mod sweep;
mod table;
mod transaction;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, log, settings::from_env};
use serde_json::Value;

use crate::{handler::NodeResult, launch_hook::LaunchHook, settings::Settings, table::Store};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let config = aws::config().await;
    let result = NodeResult {
        ssm: aws_sdk_ssm::Client::new(&config),
        sqs: aws_sdk_sqs::Client::new(&config),
        s3: aws_sdk_s3::Client::new(&config),
        hook: settings
            .launch_hook
            .as_deref()
            .map(|hook| LaunchHook::new((&config).into(), hook)),
        store: Store::new(aws_sdk_dynamodb::Client::new(&config), &settings),
        settings,
    };
    run(service_fn(async |event: LambdaEvent<Value>| {
        Ok::<_, Error>(aws::until(event.context.deadline(), result.handle(event.payload)).await)
    }))
    .await
}
