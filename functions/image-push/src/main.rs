//! An ECR push becomes one command for all nodes that want the image.

mod event;
mod handler;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{
    aws, log,
    settings::{Settings, from_env},
};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let settings = from_env(Settings::read);
    let ssm = aws_sdk_ssm::Client::new(&aws::config().await);
    run(service_fn(|event: LambdaEvent<Value>| {
        handler::handle(&ssm, &settings, event.payload)
    }))
    .await
}
