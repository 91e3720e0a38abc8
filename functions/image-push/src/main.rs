//! An ECR push becomes one command for all nodes that want the image.

mod event;
mod handler;
mod wanted;

use std::time::SystemTime;

use aws_sdk_ecr::config::Builder;
use aws_sdk_ssm::Client;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{
    aws,
    boot::BootLists,
    ecr::Registries,
    log,
    rule_images::RuleImages,
    sender::Sender,
    settings::{Outcomes, Settings, UsageSettings, boot_list_path, from_env},
};
use serde_json::Value;

use crate::handler::ImagePush;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let outcomes = from_env(Outcomes::read);
    let usage = from_env(UsageSettings::read);
    let config = aws::patient_config().await;
    let sender = Sender::new(&config, settings.mode, outcomes);
    let push = ImagePush {
        boot: from_env(boot_list_path).map(|path| BootLists::new(Client::new(&config), path, settings.mode)),
        images: RuleImages::new(&config, &settings, &usage)?,
        registries: Registries::new(&Builder::from(&config), &usage),
        sender,
        settings,
    };
    run(service_fn(|event: LambdaEvent<Value>| {
        let sent = push.handle(event.payload, SystemTime::now());
        aws::until(event.context.deadline(), sent)
    }))
    .await
}
