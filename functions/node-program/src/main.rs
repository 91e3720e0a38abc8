//! The nodes' program is published into the stack's own ECR repository when the stack is deployed.

mod artifact;
mod handler;
mod programs;
mod repository;
mod settings;

use std::env;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{aws, custom_resource::Answers, log};
use serde_json::Value;

use crate::{artifact::Artifact, handler::NodeProgram};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    log::init();
    let ecr = aws_sdk_ecr::Client::new(&aws::patient_config().await);
    let program = NodeProgram {
        answers: Answers::default(),
        artifact: Artifact::of(&programs::built(), env!("CARGO_PKG_VERSION")),
        ecr,
        variable: |name| env::var(name).ok(),
    };
    run(service_fn(|event: LambdaEvent<Value>| {
        aws::until(event.context.deadline(), program.handle(event.payload))
    }))
    .await
}
