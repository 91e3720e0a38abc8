//! Runs one command from its parameters to its exit code.

mod bring;
mod ours;
mod queued;
mod turn;

use std::time::Duration;

use prefetch::outcome::{NodeReason, Status};
use tokio::time::{Instant, sleep_until};

use self::bring::End;
use crate::{
    boots,
    command::{Command, stop::Stop},
    containerd::{config::Config, leftovers, start::refuse_missing},
    context::Context,
    failure::Failure,
    host::Host,
    parameters::Parameters,
    report::{Line, Reporter},
    time::Time,
    usage,
};

/// Runs a command to its end, and returns its exit code: 0 where every image is there or left out, 1 where one is not.
///
/// # Errors
/// That nothing can be done on this node, and why.
pub async fn run(parameters: &Parameters, host: Host, began: Instant) -> Result<u8, String> {
    refuse_missing(&host)?;
    let stop = Stop::new().map_err(|error| format!("signals cannot be taken: {error}"))?;
    let time = Time::within(parameters.execution_timeout, began);
    let reporter = Reporter::new(parameters.report_only);
    if !parameters.report_only {
        leftovers::remove_files(&host);
    }
    let config = match config_of(&host, &time, &stop).await {
        Ok(config) => config,
        Err(failure) => return Ok(fail_all(parameters, &reporter, &failure)),
    };
    config.refuse_disabled()?;
    let context = Context::new(host, time, config);
    let command = Command::new(&context, parameters, reporter, &stop);
    let end = if parameters.images.is_empty() {
        Some(End::Idle)
    } else {
        bring(&command).await
    };
    if end.is_some_and(|end| end != End::GivenUp) {
        tell_usage(&command).await;
    }
    Ok(command.exit_code())
}

/// Brings a command's images, and what others ask for; returns how its own work has ended, none where it was ended.
async fn bring(command: &Command<'_>) -> Option<End> {
    command.note_what_is_named();
    let end = command.run(command.prefetch()).await;
    if end == Some(End::Worked) && command.lock.borrow().is_some() {
        queued::serve(command).await;
    }
    turn::bring_boots_along(command);
    end
}

/// Tells which images are in use, unless a signal comes, or at boot: nothing is in use then.
async fn tell_usage(command: &Command<'_>) {
    if boots::is_boot() {
        return;
    }
    let Command {
        context,
        parameters,
        reporter,
        stop,
        ..
    } = command;
    tokio::select! {
        biased;
        () = stop.happens() => {}
        () = usage::tell(context, reporter, parameters.report_only) => {}
    }
}

/// Reads containerd's settings, unless a signal or the deadline comes before.
async fn config_of(host: &Host, time: &Time, stop: &Stop) -> Result<Config, Failure> {
    tokio::select! {
        config = Config::of(host, time.deadline().into_std()) => config,
        () = stop.happens() => Err(Failure::new(NodeReason::Interrupted, "the command was ended")),
        () = sleep_until(time.deadline()) => Err(Failure::new(NodeReason::Timeout, "containerd's settings cannot be had")),
    }
}

/// Reports every image as failed, and returns the exit code for that: without any there is no failure.
fn fail_all(parameters: &Parameters, reporter: &Reporter, failure: &Failure) -> u8 {
    reporter.say(&failure.detail);
    for image in &parameters.images {
        reporter.report(&Line {
            image,
            status: Status::Failed,
            reason: Some(failure.reason),
            spent: Duration::ZERO,
            bytes: 0,
            attempts: 0,
        });
    }
    u8::from(!parameters.images.is_empty())
}
