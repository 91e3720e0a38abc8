//! Reads what nodes reported, and makes it job status, statistics, records, metrics, or a retry.
//!
//! It is a pipeline: each file takes what those above it give, and imports none below it.
//!
//! What has to be done besides the table (records, metrics, retries) must neither be lost nor be done for a report that was
//! known. So it is decided before the table is written, and written as a row of its own, the outbox, in the same transaction.
//! Then it is done, and the row deleted; where the function dies between, whoever comes next with the same event, or the
//! sweep, finds the row and does it. A retry waits in the function's own queue and comes back as a message, once it is due.

// What all stages speak of, and the services that several speak to.
mod decision;
mod queue;
mod settings;
mod table;

// A message becomes events, and these, with SSM's answers, observations.
mod event;
mod report;

mod observation;

// Observations become node states and inventories, retries are decided, and what is new is a change.
mod node_state;

mod inventory;
mod retry;

mod changes;

// Changes become transactions, with what has to be done after them.
mod metrics;
mod records;

mod transaction;

// What nodes run becomes rows of their rules.
mod usage;

mod usage_rows;

// What has to be done is done.
mod launch_hook;

mod effects;

// What the function is called for.
mod sweep;

mod context;

mod handler;

#[cfg(test)]
mod cloud;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, log, settings::from_env};
use serde_json::Value;

use crate::{context::NodeResult, launch_hook::LaunchHook, settings::Settings, table::Table, usage_rows::UsageRows};

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
        table: Table::new(aws_sdk_dynamodb::Client::new(&config), &settings),
        usage: UsageRows::new(settings.used_within),
        settings,
    };
    run(service_fn(async |event: LambdaEvent<Value>| {
        let answer = handler::handle(&result, event.payload);
        Ok::<_, Error>(aws::until(event.context.deadline(), answer).await)
    }))
    .await
}
