//! POST /jobs: images to nodes, now.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant, SystemTime},
};

use chrono::{DateTime, Utc};
use prefetch::{
    aws,
    command::{Comment, Trigger, images_of_commands},
    ecr::NewestImages,
    fields::FieldError,
    image::Image,
    node::NodeSelector,
    report::report,
    resolve::resolve,
    rule::Rule,
    sender::Order,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    answer::Answer,
    choice::{Choice, choices},
    handler::Jobs,
    idempotency::{self, Begun, Claim, Progress, begin},
    plan::{Batch, Plan, Planned, Resolved, Sent, SentCommands},
    problem::Problem,
    reach::{Reason, Refused, reachable},
    request::{JobRequest, NodeChoice},
    search::find_sent,
    store,
};

/// How many commands one request sends at most: one after the other they must be sent before API Gateway gives up.
const MAX_COMMANDS: usize = 60;
/// How many one with a key sends, which goes on where it was left: as a schedule's does at Lambda's next try.
const MAX_COMMANDS_WITH_KEY: usize = 200;
/// How long commands are sent: API Gateway gives up after 30 seconds (quotas of HTTP APIs), and whoever asked would not
/// know what was sent. Nobody waits for a schedule's, which are sent as long as the function runs.
const SENDING: Duration = Duration::from_secs(20);
/// How long ECR is asked for a rule's newest images, so that there is time left to send them in.
const LISTING: Duration = Duration::from_secs(8);
/// What is left of a request's time to look for a command whose answer got lost, and to note and to tell what was sent.
const NOTING: Duration = Duration::from_secs(6);
/// What is left beside when no further command is sent: SSM answers in less, and one that it had no time to answer would be in
/// doubt.
const ANSWERING: Duration = Duration::from_secs(2);
/// How long such a command is looked for.
const LOOKING: Duration = Duration::from_secs(4);
/// Of how many nodes a problem tells why they get nothing.
const MAX_TOLD: usize = 20;

/// Brings images to nodes: everything is decided before anything is sent.
///
/// Costs one DescribeImages per repository, for nodes by id also DescribeInstances and DescribeInstanceInformation, and one
/// SendCommand and a write per rule, as many images as fit and 50 ids; with a key also a write before, and one more for each
/// command.
///
/// # Errors
/// A 4xx for what is the caller's fault, and nothing is sent; a 503 where AWS fails, which tells what was sent before.
pub async fn submit(
    jobs: &Jobs,
    body: Value,
    key: Option<&str>,
    trigger: Trigger,
    requested_by: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Answer, Problem> {
    let request = JobRequest::parse(body, &jobs.settings.registry)?;
    let due = |occasion, requested_by: Option<&str>| Due {
        trigger,
        requested_by: requested_by.map(str::to_owned),
        occasion,
        now,
    };
    let most = if key.is_some() {
        MAX_COMMANDS_WITH_KEY
    } else {
        MAX_COMMANDS
    };
    if request.dry_run {
        let plan = plan(jobs, &request, most, now).await?;
        return Ok(Answer::ok(&plan.answer(&SentCommands::new(), true)));
    }
    let Some(key) = key else {
        let plan = plan(jobs, &request, most, now).await?;
        // Without a key no request is known again.
        let occasion = format!("{:016x}", RandomState::new().hash_one(now));
        let sent = send_all(jobs, &due(occasion, requested_by), &plan, SentCommands::new(), None).await?;
        return answer(&plan, &sent);
    };
    let body = serde_json::to_string(&request).expect("a request is JSON");
    let mut kind = trigger.to_string();
    if jobs.sender.observes() {
        // What was observed is sent once the stack sends, under the same key.
        kind.push_str(" observed");
    }
    match begin(
        &jobs.dynamodb,
        &jobs.settings.table,
        (&kind, key),
        &body,
        requested_by,
        now,
    )
    .await?
    {
        Begun::Done(Progress { plan, sent, .. }) => Ok(Answer::new(202, &plan.answer(&sent, false))),
        Begun::New(claim) => {
            let planned = match plan(jobs, &request, most, now).await {
                Ok(plan) => claim.plan(&plan).await.map(|()| plan),
                Err(problem) => Err(problem),
            };
            match planned {
                Ok(plan) => {
                    let due = due(claim.occasion(now), requested_by);
                    send_claimed(jobs, &due, &plan, SentCommands::new(), &claim).await
                }
                Err(problem) => {
                    forget(&claim).await;
                    Err(problem)
                }
            }
        }
        Begun::Again(claim, progress) => {
            // Whoever comes again goes on with what another asked for.
            let due = due(claim.occasion(progress.since), progress.requested_by.as_deref());
            go_on(jobs, &due, progress, &claim).await
        }
    }
}

/// Why commands are due, and when.
pub struct Due {
    pub trigger: Trigger,
    /// Who asked for them, where that is known.
    requested_by: Option<String>,
    /// What tells a request from every other, however often it comes.
    pub occasion: String,
    now: DateTime<Utc>,
}

/// Goes on where another left a request: what SSM knows of it is not sent again.
async fn go_on(jobs: &Jobs, due: &Due, progress: Progress, claim: &Claim) -> Result<Answer, Problem> {
    let Progress {
        plan, mut sent, since, ..
    } = progress;
    let commands = plan.commands();
    // Each command is noted before the next is sent: those behind the first that is left were not tried.
    let first = (0..commands.len()).find(|place| commands[*place].left(sent.get(place)).is_some());
    let tried = &commands[..first.map_or(0, |first| first + 1)];
    let found = find_sent(jobs, due, tried, None, &mut sent, since, Some(claim)).await;
    note_request(jobs, due, sent.values()).await;
    match found {
        Ok(()) => send_claimed(jobs, due, &plan, sent, claim).await,
        Err(problem) => {
            open(claim).await;
            let problem = if problem.is_ours() {
                let left = commands.iter().enumerate();
                let left = left.filter_map(|(place, command)| command.left(sent.get(&place)));
                problem.with_unknown(left.flat_map(|left| left.told(None)).collect(), advice(Some(claim)))
            } else {
                problem
            };
            Err(problem.with_jobs(plan.told(&sent)))
        }
    }
}

/// Sends what is left of a plan, and notes how that ended.
async fn send_claimed(
    jobs: &Jobs,
    due: &Due,
    plan: &Plan,
    sent: SentCommands,
    claim: &Claim,
) -> Result<Answer, Problem> {
    match send_all(jobs, due, plan, sent, Some(claim)).await {
        Ok(sent) => {
            let answer = answer(plan, &sent);
            let noted = if answer.is_ok() {
                claim.done().await
            } else {
                claim.forget().await
            };
            if let Err(error) = noted {
                // Whoever comes again finds all of it sent.
                warn!("{}", report(&error));
            }
            answer
        }
        Err(problem) => {
            open(claim).await;
            Err(problem)
        }
    }
}

fn answer(plan: &Plan, sent: &SentCommands) -> Result<Answer, Problem> {
    if sent.values().all(|sent| sent.id.is_none()) {
        let refused: Vec<Refused> = sent.values().flat_map(Sent::not_reached).collect();
        return Err(if refused.iter().all(|refused| refused.reason == Reason::NotOnline) {
            Problem::unavailable(&NobodyLeft)
        } else {
            none_reachable(&refused)
        });
    }
    Ok(Answer::new(202, &plan.answer(sent, false)))
}

/// What cannot be noted is found out in time: after a minute whoever comes again goes on in any case.
async fn open(claim: &Claim) {
    if let Err(error) = claim.open().await {
        warn!("{}", report(&error));
    }
}

async fn forget(claim: &Claim) {
    if let Err(error) = claim.forget().await {
        warn!("{}", report(&error));
    }
}

/// Decides what is to be sent, of at most so many commands.
///
/// # Errors
/// A 400 where something of the request is not accepted, a 503 where AWS cannot be asked.
async fn plan(jobs: &Jobs, request: &JobRequest, most: usize, now: DateTime<Utc>) -> Result<Plan, Problem> {
    let choices = choices(request, &jobs.settings)?;
    let images = resolve(&jobs.ecr, &jobs.settings.registry, &request.images).await?;
    let (nodes, refused) = match &request.nodes {
        Some(NodeChoice::Ids(ids)) => {
            let (online, refused) = reachable(jobs, ids).await?;
            if online.is_empty() {
                return Err(none_reachable(&refused));
            }
            (Some(NodeChoice::Ids(online)), refused)
        }
        other => (other.clone(), Vec::new()),
    };
    let newest_images = jobs.images.anew(LISTING);
    let mut batches = Vec::with_capacity(choices.len());
    for Choice { rule, images: places } in choices {
        let of_rule = if request.images.is_empty() {
            newest(&newest_images, rule, now).await?
        } else {
            places.iter().map(|place| images[*place].clone()).collect()
        };
        let mut seen = HashSet::new();
        let of_rule: Vec<Image> = of_rule.into_iter().filter(|image| seen.insert(image.clone())).collect();
        let nodes = destination(jobs, rule, nodes.as_ref());
        batches.extend(images_of_commands(&of_rule).map(|images| Batch {
            rule: rule.name.clone(),
            images: images.to_vec(),
            nodes: nodes.clone(),
        }));
    }
    let asked = request.images.iter().map(|image| image.asked.clone());
    let plan = Plan {
        images: asked
            .zip(images)
            .map(|(asked, image)| Resolved { asked, image })
            .collect(),
        refused,
        batches,
    };
    let commands = plan.commands().len();
    if commands > most {
        let detail = format!(
            "it takes {commands} commands, and one request sends at most {MAX_COMMANDS}, with an Idempotency-Key {MAX_COMMANDS_WITH_KEY}: ask for fewer images or nodes at once"
        );
        return Err(Problem::bad_request(detail));
    }
    Ok(plan)
}

/// Refuses a request that names no node that can be sent anything, and tells why of some of them.
fn none_reachable(refused: &[Refused]) -> Problem {
    let error = |refused: &Refused| {
        let accepted = format!("a running node of the cluster that SSM reaches: {}", refused.message);
        FieldError::new("nodes.ids", Some(json!(refused.id)), accepted)
    };
    Problem::fields(refused.iter().take(MAX_TOLD).map(error).collect())
}

async fn newest(images: &NewestImages, rule: &Rule, now: DateTime<Utc>) -> Result<Vec<Image>, Problem> {
    let images = images.of_rule(rule, SystemTime::from(now)).await;
    let images = images.map_err(|error| Problem::unavailable(&error))?;
    if images.is_empty() {
        let accepted = "a rule that names an image that exists";
        return Err(Problem::field("rule", Some(json!(rule.name)), accepted));
    }
    Ok(images)
}

fn destination(jobs: &Jobs, rule: &Rule, chosen: Option<&NodeChoice>) -> NodeChoice {
    let cluster = &jobs.settings.shared.cluster;
    let selector = match chosen {
        Some(ids @ NodeChoice::Ids(_)) => return ids.clone(),
        Some(NodeChoice::Tags(tags)) => NodeSelector::of_tags(cluster, tags.clone()),
        None => NodeSelector::new(cluster, rule),
    };
    NodeChoice::Tags(selector.tags().clone())
}

/// Sends what is left of a plan, one command after the other, and notes each with the claim, where there is one.
async fn send_all(
    jobs: &Jobs,
    due: &Due,
    plan: &Plan,
    mut sent: SentCommands,
    claim: Option<&Claim>,
) -> Result<SentCommands, Problem> {
    let began = Instant::now();
    let commands = plan.commands();
    for (place, command) in commands.iter().enumerate() {
        let Some(left) = command.left(sent.get(&place)) else {
            continue;
        };
        let is_late = aws::left().is_some_and(|left| left <= NOTING + ANSWERING);
        if is_late || due.trigger != Trigger::Schedule && began.elapsed() > SENDING {
            return Err(Problem::unavailable(&TooSlow).with_jobs(plan.told(&sent)));
        }
        let mut one = sent.remove(&place).unwrap_or_else(|| Sent::begin(command));
        let outcome = send(jobs, due, &left, &mut one).await;
        let is_in_doubt = outcome
            .as_ref()
            .map_or_else(Problem::is_in_doubt, |is_in_doubt| *is_in_doubt);
        let mut failed = outcome.err();
        if !one.is_untouched() {
            note_request(jobs, due, [&one]).await;
            let noted = match claim {
                Some(claim) => claim.sent(place, &one).await,
                None => Ok(()),
            };
            sent.insert(place, one);
            failed = failed.or(noted.err().map(idempotency::problem));
        }
        if is_in_doubt {
            look(jobs, due, &commands, place, &mut sent, claim).await;
        }
        if let Some(problem) = failed.take_if(|problem| problem.is_in_doubt()) {
            let left = command.left(sent.get(&place));
            failed = left.map(|left| problem.with_unknown(left.told(None), advice(claim)));
        }
        if let Some(problem) = failed {
            return Err(problem.with_jobs(plan.told(&sent)));
        }
    }
    Ok(sent)
}

/// Looks once for a command that SSM may have taken without saying so, be it beside one of which it has; where SSM cannot be
/// asked, that stays unknown.
async fn look(
    jobs: &Jobs,
    due: &Due,
    commands: &[Planned],
    place: usize,
    sent: &mut SentCommands,
    claim: Option<&Claim>,
) {
    if jobs.sender.observes() {
        return;
    }
    let found = find_sent(jobs, due, &commands[..=place], Some(place), sent, due.now, claim);
    match timeout(LOOKING, found).await {
        Ok(Ok(())) => note_request(jobs, due, sent.get(&place)).await,
        Ok(Err(problem)) => warn!("a command whose answer got lost is not found: {}", problem.told()),
        Err(_) => warn!("a command whose answer got lost is not found in time"),
    }
}

/// Writes into the rows of jobs by which request they were made, who asked, and which are the same once more. A job whose row does not say so is as good a
/// job: it is logged and goes on.
async fn note_request(jobs: &Jobs, due: &Due, sent: impl IntoIterator<Item = &Sent>) {
    let who = due.requested_by.as_deref();
    if who.is_none() && jobs.sender.observes() {
        // What is only observed nobody looks for.
        return;
    }
    for sent in sent {
        for id in sent.ids() {
            let is_first = sent.id.as_ref() == Some(id);
            let duplicates = if is_first { &sent.duplicates[..] } else { &[] };
            if let Err(error) = store::put_request(jobs, id, &due.occasion, who, duplicates, due.now).await {
                warn!(
                    command.id = id,
                    "job {id}: who asked for it is not noted: {}",
                    report(&error)
                );
            }
        }
    }
}

/// What to do about a command that may have been sent.
fn advice(claim: Option<&Claim>) -> &'static str {
    if claim.is_some() {
        "what is named as unknown may have been sent: the same request with its Idempotency-Key finds it, and sends the rest"
    } else {
        "what is named as unknown may have been sent, and is listed then: the same request sends it again, which costs a node that has it nothing; with an Idempotency-Key it would find it"
    }
}

/// SSM took longer for some commands than there is time for all.
#[derive(Debug, thiserror::Error)]
#[error("SSM takes long, and not all was sent")]
struct TooSlow;

/// Every node went offline between being looked up and being sent something.
#[derive(Debug, thiserror::Error)]
#[error("the nodes were online a moment ago, and are no longer")]
struct NobodyLeft;

/// Sends one command; where nodes of it are refused, to the others. What became of it is noted, an error or not. Tells whether
/// SSM may have taken more than it has said.
async fn send(jobs: &Jobs, due: &Due, command: &Planned, sent: &mut Sent) -> Result<bool, Problem> {
    let settings = &jobs.settings.shared;
    let rule = rule(jobs, &command.rule)?;
    let order = Order {
        rule,
        comment: &Comment::first(due.trigger, rule),
        images: &command.images,
        destination: command.destination(&settings.cluster),
        occasion: &due.occasion,
    };
    let delivery = aws::sparing(NOTING, jobs.sender.deliver(settings, order, due.now)).await;
    for (id, nodes) in delivery.sent {
        let images = command.images.len();
        if !jobs.sender.observes() {
            info!(
                command.id = id,
                rule = rule.name,
                images,
                "sent {images} images by rule {}",
                rule.name
            );
        }
        sent.went(id, nodes.ids());
    }
    for (node, refusal) in delivery.refused {
        sent.refuse(node, refusal);
    }
    match delivery.failed.into_iter().next() {
        Some((_, error)) => Err(Problem::unavailable(&error).in_doubt(delivery.is_in_doubt)),
        None => Ok(delivery.is_in_doubt),
    }
}

/// A plan may be older than the rules.
pub fn rule<'a>(jobs: &'a Jobs, name: &str) -> Result<&'a Rule, Problem> {
    let rule = jobs.settings.shared.rules.iter().find(|rule| rule.name == name);
    rule.ok_or_else(|| Problem::field("rule", Some(json!(name)), "a rule that is there still"))
}
