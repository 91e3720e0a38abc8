//! A node that can now be reached gets the images its rules name.

mod claims;
mod decision;
mod handler;
mod instance;
mod message;
mod newest;
mod node_launch;
mod requests;
mod sending;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{
    aws,
    launch::Launches,
    log,
    rule_images::RuleImages,
    sender::Sender,
    settings::{Outcomes, Settings, UsageSettings, from_env, max_receives},
};
use serde_json::Value;

use crate::node_launch::NodeLaunch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let outcomes = from_env(Outcomes::read);
    let usage = from_env(UsageSettings::read);
    let max_receives = from_env(max_receives);
    let config = aws::config().await;
    let launch = NodeLaunch {
        ec2: aws_sdk_ec2::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
        launches: Launches::new(&config, &outcomes.table),
        sender: Sender::new(&config, settings.mode, outcomes),
        images: RuleImages::new(&config, &settings, &usage)?,
        settings,
        max_receives,
    };
    run(service_fn(|event: LambdaEvent<Value>| {
        aws::until(event.context.deadline(), launch.handle(event.payload))
    }))
    .await
}
