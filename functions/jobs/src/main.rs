//! On-demand, scheduled and reconciling prefetches; what became of them; which node holds what.

mod answer;
mod boot;
mod cancel;
mod choice;
#[cfg(test)]
mod cloud;
mod clusters;
mod cron;
mod door;
mod handler;
mod idempotency;
mod list;
mod nodes;
mod plan;
mod problem;
mod query;
mod reach;
mod reconcile;
mod request;
mod route;
mod schedule;
mod search;
mod settings;
mod stats;
mod status;
mod store;
mod submit;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, ecr::NewestImages, log, sender::Sender, settings::from_env};
use serde_json::Value;

use crate::{handler::Jobs, settings::Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let config = aws::config().await;
    let jobs = Jobs {
        ssm: aws_sdk_ssm::Client::new(&config),
        sender: Sender::new(&config, settings.shared.mode, settings.outcomes()),
        ec2: aws_sdk_ec2::Client::new(&config),
        ecr: aws_sdk_ecr::Client::new(&config),
        images: NewestImages::new(&config, &settings.shared)?,
        boot: settings.boot_lists(&aws_sdk_ssm::Client::new(&config)),
        dynamodb: aws_sdk_dynamodb::Client::new(&config),
        scheduler: aws_sdk_scheduler::Client::new(&config),
        settings,
    };
    run(service_fn(async |event: LambdaEvent<Value>| {
        let answer = jobs.handle(event.payload, &event.context.invoked_function_arn);
        aws::until(event.context.deadline(), answer).await
    }))
    .await
}
