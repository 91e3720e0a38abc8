//! Usage: which images are in use on the node, and what its pods have found there; told after a command's own lines.

mod in_use;
mod last_look;
mod look;
mod mark;
mod pods;
mod reference;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prefetch::{outcome::NodeReason, usage_line::UsageTotals};
use tokio::time::timeout;

use self::{
    in_use::{InUse, in_use},
    last_look::LastLook,
    look::Look,
    mark::{first_uses, mark},
    pods::{PodImages, pod_images},
};
use crate::{context::Context, failure::Failure, host::RUN, report::Reporter};

/// Bounds the time of a look, whose command is done otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints a line for each image in use, as far as there is room, and the totals. Where containerd does not answer, it says so
/// and prints nothing.
pub async fn tell(context: &Context, reporter: &Reporter, report_only: bool) {
    let told = timeout(PATIENCE, Box::pin(look_and_print(context, reporter, report_only)));
    let told = context.time.until_end(told).await.and_then(|told| {
        told.unwrap_or_else(|_| Err(Failure::new(NodeReason::Timeout, "containerd takes too long to answer")))
    });
    if let Err(failure) = told {
        reporter.say(&format!("which images are in use cannot be told: {}", failure.detail));
    }
}

async fn look_and_print(context: &Context, reporter: &Reporter, report_only: bool) -> Result<(), Failure> {
    let look = Look::at(context).await?;
    let in_use = in_use(&look);
    let counts = if report_only {
        Counts::of(&look, &in_use, LastLook::read(&context.host))
    } else {
        count_once(context, &look, &in_use, reporter).await
    };
    print(reporter, &in_use, counts);
    Ok(())
}

/// Holds what a look counts that no other one has counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    pods: PodImages,
    first_used_bytes: u64,
}

impl Counts {
    /// Counts what has come since a container was made, the newest that the last look has seen.
    fn of(look: &Look, in_use: &[InUse], newest: Option<i64>) -> Self {
        Self {
            pods: pod_images(look, newest),
            first_used_bytes: first_uses(&look.inventory, in_use).bytes(),
        }
    }
}

/// Counts what no look before has counted, and notes that it is counted. Where another look is at it, nothing is left to count.
async fn count_once(context: &Context, look: &Look, in_use: &[InUse], reporter: &Reporter) -> Counts {
    let mut last = match LastLook::open(&context.host) {
        Ok(Some(last)) => last,
        Ok(None) => return Counts::default(),
        Err(error) => {
            reporter.say(&format!(
                "what pods found cannot be counted, for the record in {RUN}: {error}"
            ));
            return Counts::default();
        }
    };
    let pods = pod_images(look, last.newest());
    if let Err(error) = last.note(pods.newest) {
        reporter.say(&format!(
            "what pods found is counted again, for the record in {RUN}: {error}"
        ));
    }
    let first = first_uses(&look.inventory, in_use);
    let first_used_bytes = mark(&context.containerd, &first, |words| reporter.say(words)).await;
    Counts { pods, first_used_bytes }
}

fn print(reporter: &Reporter, in_use: &[InUse], counts: Counts) {
    let lines = in_use.iter().map(|image| image.line.to_string()).collect();
    let lines = in_turn(lines, reporter.room_for_lines(), hour());
    let left_out = in_use.len() - lines.iter().filter(|line| reporter.bring_along(line)).count();
    if left_out > 0 {
        reporter.say(&format!(
            "of {} images in use {left_out} are left out: SSM returns no more lines",
            in_use.len()
        ));
    }
    let totals = UsageTotals {
        images: number(in_use.len()),
        left_out: number(left_out),
        pod_images: counts.pods.all,
        pod_images_present: counts.pods.present,
        first_used_bytes: counts.first_used_bytes,
    };
    reporter.conclude(&totals.to_string());
}

/// Orders lines of which some find no room by the hour, so that it is others each time: what is never told counts as used by
/// nobody.
fn in_turn(mut lines: Vec<String>, room: usize, hour: u64) -> Vec<String> {
    let length: usize = lines.iter().map(|line| line.len() + 1).sum();
    if length > room {
        lines.sort_by_cached_key(|line| {
            let mut hasher = DefaultHasher::new();
            (hour, line).hash(&mut hasher);
            hasher.finish()
        });
    }
    lines
}

fn hour() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    passed.as_secs() / 3600
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
