//! An ECR push becomes one command for all nodes that want the image.

mod event;
mod handler;
mod wanted;

use std::time::SystemTime;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{
    aws, log,
    sender::Sender,
    settings::{Outcomes, Settings, from_env},
};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let outcomes = from_env(Outcomes::read);
    let config = aws::patient_config().await;
    let sender = Sender::new(&config, settings.mode, outcomes);
    let ecr = aws_sdk_ecr::Client::new(&config);
    run(service_fn(|event: LambdaEvent<Value>| {
        let sent = handler::handle(&sender, &ecr, &settings, event.payload, SystemTime::now());
        aws::until(event.context.deadline(), sent)
    }))
    .await
}
