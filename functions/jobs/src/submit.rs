//! POST /jobs: images to nodes, now.

mod dispatch;
mod idempotency;
pub mod plan;
pub mod planner;
pub mod request;
pub mod rules;
mod search;
mod send_context;

use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Utc};
use prefetch::{command::Trigger, error_text::error_text, sender::Sender};
use serde_json::Value;
use thiserror::Error;
use tracing::warn;

use crate::{
    http::{answer::Answer, problem::Problem},
    nodes::reachability::{RefusalReason, RefusedNode},
    store::Store,
    submit::{
        dispatch::{note_request, send_all},
        idempotency::{
            RequestProgress, RequestStart, begin,
            lease::{KeyError, RequestLease},
        },
        plan::{Plan, SentCommand, SentCommands},
        planner::{Planner, none_reachable},
        request::JobRequest,
        search::find_sent,
        send_context::{Origin, SendContext},
    },
};

/// Holds what POST /jobs works with.
#[derive(Clone, Copy)]
pub struct Submitter<'a> {
    pub planner: Planner<'a>,
    pub sender: &'a Sender,
    pub store: &'a Store,
}

/// Holds one submission of a job.
pub struct Submission<'a> {
    pub body: Value,
    /// The idempotency key, where it has one.
    pub key: Option<&'a str>,
    pub trigger: Trigger,
    /// Who submits it, where that is known.
    pub requested_by: Option<&'a str>,
    pub now: DateTime<Utc>,
}

/// Tells that every node went offline between being looked up and being sent something.
#[derive(Debug, Error)]
#[error("the nodes were online a moment ago, and are no longer")]
struct NobodyLeft;

/// Brings images to nodes: everything is decided before anything is sent.
///
/// Costs one DescribeImages per repository, for nodes by id also DescribeInstances and DescribeInstanceInformation, and one
/// SendCommand and a write per rule, as many images as fit and 50 ids; with a key also a write before, and one more for each
/// command.
///
/// # Errors
/// A 4xx for what is the caller's fault, and nothing is sent; a 503 where AWS fails, which tells what was sent before.
pub async fn submit(submitter: &Submitter<'_>, mut submission: Submission<'_>) -> Result<Answer, Problem> {
    let body = submission.body.take();
    let request = JobRequest::parse(body, &submitter.planner.settings.registry)?;
    if request.dry_run {
        let has_key = submission.key.is_some();
        let plan = submitter.planner.plan(&request, has_key, submission.now).await?;
        return Ok(Answer::ok(&plan.answer(&SentCommands::new(), true)));
    }
    match submission.key {
        Some(key) => submit_with_key(submitter, &request, key, &submission).await,
        None => submit_once(submitter, &request, &submission).await,
    }
}

/// Sends a request without a key, by which none is known again.
async fn submit_once(
    submitter: &Submitter<'_>,
    request: &JobRequest,
    submission: &Submission<'_>,
) -> Result<Answer, Problem> {
    let plan = submitter.planner.plan(request, false, submission.now).await?;
    let occasion = format!("{:016x}", RandomState::new().hash_one(submission.now));
    let origin = origin(submission, occasion, submission.requested_by);
    let context = submitter.context(origin, None);
    answer(&plan, &send_all(&context, &plan, SentCommands::new()).await?)
}

/// Sends a request with a key, or answers what was sent for it before.
async fn submit_with_key(
    submitter: &Submitter<'_>,
    request: &JobRequest,
    key: &str,
    submission: &Submission<'_>,
) -> Result<Answer, Problem> {
    let body = serde_json::to_string(request).expect("a request is JSON");
    let mut kind = submission.trigger.to_string();
    if submitter.sender.observes() {
        // What was observed is sent once the stack sends, under the same key.
        kind.push_str(" observed");
    }
    let Submission { requested_by, now, .. } = *submission;
    match begin(submitter.store, (&kind, key), &body, requested_by, now).await? {
        RequestStart::Done(RequestProgress { plan, sent, .. }) => Ok(Answer::new(202, &plan.answer(&sent, false))),
        RequestStart::New(lease) => {
            let plan = plan_leased(submitter, request, &lease, now).await?;
            let origin = origin(submission, lease.occasion(now), requested_by);
            send_leased(
                &submitter.context(origin, Some(&lease)),
                &lease,
                &plan,
                SentCommands::new(),
            )
            .await
        }
        RequestStart::Again(lease, progress) => {
            // Whoever comes again goes on with what another requested.
            let occasion = lease.occasion(progress.since);
            let origin = origin(submission, occasion, progress.requested_by.as_deref());
            go_on(&submitter.context(origin, Some(&lease)), &lease, progress).await
        }
    }
}

fn origin(submission: &Submission<'_>, occasion: String, requested_by: Option<&str>) -> Origin {
    Origin {
        trigger: submission.trigger,
        requested_by: requested_by.map(str::to_owned),
        occasion,
        now: submission.now,
    }
}

impl<'a> Submitter<'a> {
    fn context(&self, origin: Origin, lease: Option<&'a RequestLease>) -> SendContext<'a> {
        SendContext {
            sender: self.sender,
            ssm: self.planner.ssm,
            store: self.store,
            settings: &self.planner.settings.shared,
            origin,
            lease,
        }
    }
}

/// Decides what is to be sent, and notes it; a request that is refused leaves its key free.
async fn plan_leased(
    submitter: &Submitter<'_>,
    request: &JobRequest,
    lease: &RequestLease,
    now: DateTime<Utc>,
) -> Result<Plan, Problem> {
    let planned = match submitter.planner.plan(request, true, now).await {
        Ok(plan) => lease.plan(&plan).await.map(|()| plan),
        Err(problem) => Err(problem),
    };
    if planned.is_err() {
        warn_of(lease.forget().await);
    }
    planned
}

/// Goes on where another left a request: what SSM knows of it is not sent again.
async fn go_on(context: &SendContext<'_>, lease: &RequestLease, progress: RequestProgress) -> Result<Answer, Problem> {
    let RequestProgress {
        plan, mut sent, since, ..
    } = progress;
    let commands = plan.commands();
    // Each command is noted before the next is sent: those behind the first that is left were not tried.
    let first = (0..commands.len()).find(|place| commands[*place].left(sent.get(place)).is_some());
    let tried = &commands[..first.map_or(0, |first| first + 1)];
    let found = find_sent(context, tried, None, &mut sent, since).await;
    note_request(context, sent.values()).await;
    let Err(mut problem) = found else {
        return send_leased(context, lease, &plan, sent).await;
    };
    warn_of(lease.open().await);
    if problem.is_ours() {
        let left = commands.iter().enumerate();
        let left = left.filter_map(|(place, command)| command.left(sent.get(&place)));
        problem = problem.with_unknown(left.flat_map(|left| left.as_jobs(None)).collect(), context.advice());
    }
    Err(problem.with_jobs(plan.sent_jobs(&sent)))
}

/// Sends what is left of a plan, and notes how that ended.
async fn send_leased(
    context: &SendContext<'_>,
    lease: &RequestLease,
    plan: &Plan,
    sent: SentCommands,
) -> Result<Answer, Problem> {
    match send_all(context, plan, sent).await {
        Ok(sent) => {
            let answer = answer(plan, &sent);
            let noted = if answer.is_ok() {
                lease.done().await
            } else {
                lease.forget().await
            };
            warn_of(noted);
            answer
        }
        Err(problem) => {
            warn_of(lease.open().await);
            Err(problem)
        }
    }
}

/// Logs what cannot be noted of a lease: whoever comes again after a minute finds what was sent, and goes on.
fn warn_of(noted: Result<(), KeyError>) {
    if let Err(error) = noted {
        warn!("{}", error_text(&error));
    }
}

fn answer(plan: &Plan, sent: &SentCommands) -> Result<Answer, Problem> {
    if sent.values().any(|sent| sent.id.is_some()) {
        return Ok(Answer::new(202, &plan.answer(sent, false)));
    }
    let refused: Vec<RefusedNode> = sent.values().flat_map(SentCommand::not_reached).collect();
    let are_offline = refused.iter().all(|node| node.reason == RefusalReason::NotOnline);
    Err(if are_offline {
        Problem::unavailable(NobodyLeft)
    } else {
        none_reachable(&refused)
    })
}
