//! Runs one command from its parameters to its exit code.

mod bring;
mod ours;
mod queued;
mod turn;

use std::time::Duration;

use prefetch::outcome::{NodeReason, Status};
use tokio::time::{Instant, sleep_until};

use crate::{
    command::{Command, stop::Stop},
    containerd::{config::Config, start::is_installed},
    context::Context,
    failure::Failure,
    host::Host,
    parameters::Parameters,
    report::{Line, Reporter},
    time::Time,
};

/// Runs a command to its end, and returns its exit code: 0 where every image is there or left out, 1 where one is not.
///
/// # Errors
/// That nothing can be done on this node, and why.
pub async fn run(parameters: &Parameters, host: Host, began: Instant) -> Result<u8, String> {
    if !is_installed(&host) {
        return Err("there is no containerd on this node; it cannot be prefetched to".to_owned());
    }
    let stop = Stop::new().map_err(|error| format!("signals cannot be taken: {error}"))?;
    let time = Time::of(parameters, began);
    let reporter = Reporter::new(parameters.report_only);
    let config = match config_of(&host, &time, &stop).await {
        Ok(config) => config,
        Err(failure) => return Ok(fail_all(parameters, &reporter, &failure)),
    };
    if config.is_cri_disabled {
        return Err(
            "containerd's CRI is disabled: kubelet uses another runtime, such as Docker, which is not supported"
                .to_owned(),
        );
    }
    let context = Context::new(host, time, config);
    let command = Command::new(&context, parameters, reporter, &stop);
    command.note_what_is_named();
    let may_serve = command.run(command.prefetch()).await == Some(true);
    if may_serve && command.lock.borrow().is_some() {
        queued::serve(&command).await;
    }
    turn::bring_boots_along(&command);
    Ok(command.exit_code())
}

/// Reads containerd's settings, unless a signal or the deadline comes before.
async fn config_of(host: &Host, time: &Time, stop: &Stop) -> Result<Config, Failure> {
    tokio::select! {
        config = Config::of(host, time.deadline().into_std()) => config,
        () = stop.happens() => Err(Failure::new(NodeReason::Interrupted, "the command was ended")),
        () = sleep_until(time.deadline()) => Err(Failure::new(NodeReason::Timeout, "containerd's settings cannot be had")),
    }
}

/// Reports every image as failed, and returns the exit code for that.
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
    1
}
