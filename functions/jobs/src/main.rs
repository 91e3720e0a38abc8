//! On-demand, scheduled and reconciling prefetches; what became of them; which node holds what, and what nodes run.
//!
//! An event comes in by `event` and is answered by `handler`, which gives each operation the clients it needs out of
//! `jobs`: `submit` plans and sends a job, `status` tells what became of it and cancels it, `nodes` tells what nodes
//! hold, `usage` what they run, `schedule` keeps schedules, `reconcile` sends every rule's newest images. Requests and answers are `http`'s, the
//! table is `store`'s.

mod event;
mod handler;
mod hash;
mod http;
mod jobs;
mod log;
mod nodes;
mod reconcile;
mod schedule;
mod settings;
mod status;
mod store;
mod submit;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{
    aws, log::init, rule_images::RuleImages, sender::Sender, settings::from_env, tags::TagResolver, usage::Usage,
};
use serde_json::Value;

use crate::{handler::handle, jobs::Jobs, settings::Settings, store::Store};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    init();
    let settings = from_env(Settings::read);
    let config = aws::config().await;
    let usage = Arc::new(Usage::new(&config, &settings.usage.table, settings.usage.within));
    let jobs = Jobs {
        ssm: aws_sdk_ssm::Client::new(&config),
        sender: Sender::new(&config, settings.shared.mode, settings.outcomes.clone()),
        ec2: aws_sdk_ec2::Client::new(&config),
        ecr: aws_sdk_ecr::Client::new(&config),
        tags: TagResolver::new(&config, &settings.stack, settings.shared.mode),
        images: RuleImages::with_usage(&config, &settings.shared, &settings.usage, Arc::clone(&usage))?,
        boot: settings.boot_lists(&aws_sdk_ssm::Client::new(&config)),
        store: Store::new(aws_sdk_dynamodb::Client::new(&config), settings.outcomes.clone()),
        usage,
        scheduler: aws_sdk_scheduler::Client::new(&config),
        settings,
    };
    run(service_fn(async |event: LambdaEvent<Value>| {
        let answer = handle(&jobs, event.payload, &event.context.invoked_function_arn);
        aws::until(event.context.deadline(), answer).await
    }))
    .await
}
