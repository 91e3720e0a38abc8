//! Tags: which digests they stand for, asked the way that downloads take; nothing on the node changes by it.

mod image_kind;
mod resolver;

use futures_util::future::join_all;
use prefetch::{
    outcome::NodeReason,
    tag_line::{TagFailure, TagLine},
};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep_until},
};

use self::resolver::{Answer, Resolver};
use crate::{
    command::stop::Stop,
    containerd::{
        config::Config,
        leftovers,
        start::{Start, refuse_missing},
    },
    failure::Failure,
    host::Host,
    parameters::TagParameters,
    report,
    time::Time,
};

/// Tells what keeps a command from an answer for each tag.
enum Obstacle {
    /// The node is not supported.
    Node(String),
    /// The tags without an answer have failed.
    Failure(Failure),
}

/// Resolves a command's tags, and prints a line for each; returns 0 where every digest is told, 1 where one is not.
///
/// # Errors
/// That nothing can be done on this node, and why.
pub async fn run(parameters: &TagParameters, host: &Host, began: Instant) -> Result<u8, String> {
    refuse_missing(host)?;
    let stop = Stop::new().map_err(|error| format!("signals cannot be taken: {error}"))?;
    let time = Time::within(parameters.execution_timeout, began);
    leftovers::remove_files(host);
    let answers = parameters.tags.iter().map(|_| OnceCell::new()).collect::<Vec<_>>();
    let ended = tokio::select! {
        biased;
        () = stop.happens() => Err(Obstacle::failure(NodeReason::Interrupted, "the command was ended")),
        ended = resolve_all(parameters, host, &time, &answers) => ended,
        () = sleep_until(time.deadline()) => Err(Obstacle::failure(NodeReason::Timeout, "the time for the command is over")),
    };
    let rest = match ended {
        Err(Obstacle::Node(why)) => return Err(why),
        Err(Obstacle::Failure(failure)) => Some(TagFailure::from(failure)),
        Ok(()) => None,
    };
    Ok(report_all(parameters, answers, rest.as_ref()))
}

impl Obstacle {
    fn failure(reason: NodeReason, detail: &str) -> Self {
        Self::Failure(Failure::new(reason, detail))
    }
}

/// Resolves tags side by side.
async fn resolve_all(
    parameters: &TagParameters,
    host: &Host,
    time: &Time,
    answers: &[OnceCell<Answer>],
) -> Result<(), Obstacle> {
    let deadline = time.deadline().into_std();
    let (config, _) = Config::look(host, Start::of(host), deadline)
        .await
        .map_err(Obstacle::Failure)?;
    config.refuse_disabled().map_err(Obstacle::Node)?;
    let resolver = Resolver::on(host, config.hosts_folders, time);
    let tags = parameters.tags.iter().zip(answers);
    join_all(tags.map(|(tag, answer)| answer.get_or_init(|| resolver.resolve(tag)))).await;
    Ok(())
}

/// Prints a line for each tag, in their order, and returns the exit code; what has no answer has failed like the `rest`.
fn report_all(parameters: &TagParameters, answers: Vec<OnceCell<Answer>>, rest: Option<&TagFailure>) -> u8 {
    let mut resolved = 0;
    for (tag, answer) in parameters.tags.iter().zip(answers) {
        let answer = answer.into_inner().or_else(|| rest.cloned().map(Err));
        if let Some(digest) = answer {
            resolved += usize::from(digest.is_ok());
            report::print_tag(&TagLine {
                tag: tag.clone(),
                digest,
            });
        }
    }
    u8::from(resolved < parameters.tags.len())
}
