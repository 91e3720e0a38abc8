//! Settings that a function would refuse at its start fail the stack's deployment instead.

mod check;
mod environment;
mod handler;
mod words;

use std::{env, process::ExitCode};

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use prefetch::{custom_resource::Answers, log};
use serde_json::Value;

use crate::{check::check, handler::SettingsCheck};

/// Names the argument with which `make check` runs what CloudFormation would ask.
const BY_HAND: &str = "check";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Error> {
    let checked = check(|name| env::var(name).ok());
    if env::args().nth(1).as_deref() == Some(BY_HAND) {
        return Ok(tell(checked));
    }
    log::init();
    let check = SettingsCheck {
        answers: Answers::default(),
        checked,
    };
    run(service_fn(|event: LambdaEvent<Value>| check.handle(event.payload))).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what was found, for a person.
fn tell(checked: Result<String, String>) -> ExitCode {
    match checked {
        Ok(words) => {
            println!("{words}");
            ExitCode::SUCCESS
        }
        Err(refused) => {
            eprintln!("{refused}");
            ExitCode::FAILURE
        }
    }
}
