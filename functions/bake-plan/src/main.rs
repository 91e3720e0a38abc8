//! Plans of bakes: for each architecture its images, and the builder that pulls them.

mod bake;
mod chosen;
mod contents;
mod error;
mod handler;
mod input;
mod network;
mod nodes;
mod settings;
mod volume;
mod wanted;

use aws_sdk_ecr::config::Builder;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, ecr::Registries, log, rule_images::RuleImages, settings::from_env, tags::TagResolver};
use serde_json::Value;

use crate::{handler::BakePlan, settings::Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let config = aws::config().await;
    let plan = BakePlan {
        ec2: aws_sdk_ec2::Client::new(&config),
        tags: TagResolver::new(&config, &settings.stack, settings.shared.mode),
        ecr: aws_sdk_ecr::Client::new(&config),
        registries: Registries::new(&Builder::from(&config), &settings.usage),
        images: RuleImages::new(&config, &settings.shared, &settings.usage)?,
        settings,
    };
    run(service_fn(|event: LambdaEvent<Value>| {
        aws::until(event.context.deadline(), plan.handle(event.payload))
    }))
    .await
}
