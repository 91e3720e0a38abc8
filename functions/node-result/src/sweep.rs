//! The sweep: what SSM's events, which are best effort, did not tell is asked for once.

use std::{
    collections::BTreeSet,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use prefetch::{
    command::Comment,
    report::report,
    rows::{Key, OUTBOX_PARTITIONS},
    ssm::{self, SsmError},
};
use serde::Serialize;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::{
    effects::MessagesError, event::Ended, handler::NodeResult, node_state::Node, retry::Delayed, rows::JobRow,
    table::StoreError,
};

/// How far back from its deadline a command is looked for: as many sweeps fail in a row before one is missed.
const WINDOW: Duration = Duration::from_hours(24);
/// How long one sweep may take, of the function's 60 seconds; the next one goes on.
const TIME: Duration = Duration::from_secs(50);
/// How much of it what was left undone may take: a call that never answers there leaves time for the commands.
const OUTBOX_TIME: Duration = Duration::from_secs(25);
/// After which time what was left undone is done: long after whoever began it had to end.
const LEFT: TimeDelta = TimeDelta::minutes(15);

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// How many commands past their deadline it is done with now.
    pub commands: usize,
    /// How many nodes, and commands as wholes, had to be asked for.
    pub asked: usize,
    /// How many outbox rows it finished.
    pub finished: usize,
    /// Whether the time was too short, or AWS answered with an error: the next sweep goes on.
    pub unfinished: bool,
    /// The partitions of the outbox that it did not look through, by their characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub left: String,
}

/// A sweep may take no longer.
#[derive(Debug, Error)]
#[error("the time is over")]
struct TimeOver;

/// Why a sweep ends early.
#[derive(Debug, Error)]
enum SweepError {
    #[error(transparent)]
    Time(#[from] TimeOver),
    #[error(transparent)]
    Ssm(#[from] SsmError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Messages(#[from] MessagesError),
}

/// A command of ours whose deadline is over.
struct Expired {
    id: String,
    comment: Comment,
    requested_at: DateTime<Utc>,
    targets: i64,
}

impl Expired {
    fn job(&self) -> &str {
        self.comment.job.as_ref().unwrap_or(&self.id)
    }

    /// The event of the command on a node, or as a whole, as if it came now.
    fn ended(&self, node: Option<String>, now: DateTime<Utc>) -> Ended {
        Ended {
            command: self.id.clone(),
            node,
            requested_at: self.requested_at,
            time: now,
            overdue: true,
        }
    }
}

impl NodeResult {
    /// Finishes what was left undone, and asks for the results of commands past their deadline that no event told.
    ///
    /// It asks through the result queue: what it puts there is settled as SSM's events are. A sweep that ends early, be it
    /// for time or for throttling, leaves no mark on what it did not look at, and the next one does.
    pub async fn sweep(&self, now: DateTime<Utc>) -> Swept {
        let mut swept = Swept::default();
        let begun = Instant::now();
        let until = begun + OUTBOX_TIME;
        let outbox = within(until, Box::pin(self.sweep_outbox(now, until, &mut swept))).await;
        let until = begun + TIME;
        let commands = within(until, Box::pin(self.sweep_commands(now, until, &mut swept))).await;
        for (what, ended) in [("the outbox", outbox), ("commands", commands)] {
            if let Err(error) = ended {
                warn!("the sweep of {what} ends early: {}", report(&error));
                swept.unfinished = true;
            }
        }
        info!(
            commands = swept.commands,
            asked = swept.asked,
            finished = swept.finished,
            left = swept.left,
            "swept {} commands",
            swept.commands
        );
        swept
    }

    /// Finishes what was left undone; what cannot be read or finished holds up nothing else.
    async fn sweep_outbox(&self, now: DateTime<Utc>, until: Instant, swept: &mut Swept) -> Result<(), SweepError> {
        let partitions = partitions(now);
        swept.left.clone_from(&partitions);
        for partition in partitions.chars() {
            in_time(until)?;
            match self.sweep_partition(partition, now, until, swept).await {
                Ok(()) => swept.left.retain(|left| left != partition),
                Err(SweepError::Time(over)) => return Err(over.into()),
                Err(error) => {
                    warn!("outbox partition {partition}: {}", report(&error));
                    swept.unfinished = true;
                }
            }
        }
        Ok(())
    }

    async fn sweep_partition(
        &self,
        partition: char,
        now: DateTime<Utc>,
        until: Instant,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let mut after = None;
        loop {
            in_time(until)?;
            let (page, last) = self.store.outbox(partition, after).await?;
            for left in page.iter().filter(|outbox| outbox.created_at < now - LEFT) {
                in_time(until)?;
                match self.finish(left).await {
                    Ok(()) => swept.finished += 1,
                    Err(error) => {
                        warn!("outbox row {}: {}", left.id, report(&error));
                        swept.unfinished = true;
                    }
                }
            }
            after = last;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Goes through all commands that may be past their deadline, page by page.
    async fn sweep_commands(&self, now: DateTime<Utc>, until: Instant, swept: &mut Swept) -> Result<(), SweepError> {
        let after = now - WINDOW - self.settings.deadline;
        let after = after.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut page = None;
        loop {
            in_time(until)?;
            let answer = ssm::commands(&self.ssm, &self.settings.document, &after, page).await?;
            let commands = answer.commands.unwrap_or_default();
            let expired = commands.iter().filter_map(|command| expired(command, now)).collect();
            self.sweep_page(expired, now, until, swept).await?;
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks at those commands of a page that have no mark: one BatchGetItem for their marks and jobs.
    async fn sweep_page(
        &self,
        expired: Vec<Expired>,
        now: DateTime<Utc>,
        until: Instant,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let keys_of = |command: &Expired| [Key::swept(&command.id), Key::job(command.job())];
        let rows = self.store.read(&expired.iter().flat_map(keys_of).collect()).await?;
        for command in expired
            .iter()
            .filter(|command| !rows.contains(&Key::swept(&command.id)))
        {
            in_time(until)?;
            let job: Option<JobRow> = rows.get(&Key::job(command.job())).map_err(StoreError::Row)?;
            self.sweep_command(command, job.as_ref(), now, until, swept).await?;
            swept.commands += 1;
        }
        Ok(())
    }

    /// Asks for what is not known of a command, and marks it.
    async fn sweep_command(
        &self,
        command: &Expired,
        job: Option<&JobRow>,
        now: DateTime<Utc>,
        until: Instant,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let is_first = command.comment.job.is_none();
        if is_first && job.is_none_or(|job| job.targets.is_none()) {
            swept.asked += self.ask(&[command.ended(None, now)]).await?;
        }
        let settled = job.map_or(0, |job| job.counters.nodes());
        if !is_first || settled < command.targets {
            self.ask_for_nodes(command, now, until, swept).await?;
        }
        Ok(self.store.mark_swept(&command.id, now).await?)
    }

    /// Asks for the nodes of a command of which nothing is known, page by page.
    async fn ask_for_nodes(
        &self,
        command: &Expired,
        now: DateTime<Utc>,
        until: Instant,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let mut page = None;
        loop {
            in_time(until)?;
            let answer = ssm::invocations(&self.ssm, &command.id, page).await?;
            let invocations = answer.command_invocations.into_iter().flatten();
            let nodes: BTreeSet<String> = invocations.filter_map(|invocation| invocation.instance_id).collect();
            let missing = self.missing(command, nodes).await?;
            let events: Vec<Ended> = missing.into_iter().map(|node| command.ended(Some(node), now)).collect();
            swept.asked += self.ask(&events).await?;
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(());
            }
        }
    }

    /// Keeps the nodes of which the command's try, or a later one, is not known.
    async fn missing(&self, command: &Expired, nodes: BTreeSet<String>) -> Result<Vec<String>, StoreError> {
        let key = |node: &String| Key::node(command.job(), node);
        let rows = self.store.read(&nodes.iter().map(key).collect()).await?;
        let mut missing = Vec::new();
        for node in nodes {
            let known: Option<Node> = rows.get(&key(&node))?;
            if known.is_none_or(|known| known.attempt < command.comment.attempt) {
                missing.push(node);
            }
        }
        Ok(missing)
    }

    async fn ask(&self, events: &[Ended]) -> Result<usize, MessagesError> {
        let message = |ended: &Ended| Delayed {
            seconds: 0,
            body: ended.event(&self.settings.document),
        };
        let messages: Vec<Delayed> = events.iter().map(message).collect();
        self.send(&self.settings.result_queue, &messages).await?;
        Ok(messages.len())
    }
}

/// Gives the partitions of the outbox in the order of the sweep of this moment: where sweeps end early, whatever their
/// interval, each begins elsewhere.
fn partitions(now: DateTime<Utc>) -> String {
    let mut hasher = DefaultHasher::new();
    now.timestamp().hash(&mut hasher);
    let number = OUTBOX_PARTITIONS.len();
    let first = hasher.finish() % number as u64;
    let first = usize::try_from(first).expect("a remainder is a place");
    OUTBOX_PARTITIONS.chars().cycle().skip(first).take(number).collect()
}

/// Does something for as long as there is time, be it that a call never answers.
async fn within<T>(until: Instant, work: impl Future<Output = Result<T, SweepError>>) -> Result<T, SweepError> {
    match timeout_at(until, work).await {
        Ok(ended) => ended,
        Err(_) => Err(TimeOver.into()),
    }
}

fn in_time(until: Instant) -> Result<(), TimeOver> {
    if Instant::now() < until { Ok(()) } else { Err(TimeOver) }
}

/// Reads a command of ours whose deadline is over.
fn expired(command: &Command, now: DateTime<Utc>) -> Option<Expired> {
    let moment = |time: &aws_sdk_ssm::primitives::DateTime| DateTime::from_timestamp_millis(time.to_millis().ok()?);
    if command.expires_after().and_then(moment)? >= now {
        return None;
    }
    Some(Expired {
        id: command.command_id()?.to_owned(),
        comment: command.comment()?.parse().ok()?,
        requested_at: command.requested_date_time().and_then(moment)?,
        targets: command.target_count().into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cloud::{
        COMMAND, Cloud, Invocation, THROTTLED, command_id, event_of, event_of_command, image, line, node_id,
        requested_at,
    };

    const SWEEP: &str = include_str!("../../../events/node-result.sweep.json");

    #[tokio::test]
    async fn what_no_event_told_is_asked_for_once_and_settled_as_if_one_had() {
        let cloud = cloud_with([(1, pulled()), (2, running()), (3, pulled())]);
        cloud.batch(&[event_of(1, 1)], 1).await;
        assert_eq!(
            cloud.sweep(4300).await,
            json!({"commands": 1, "asked": 3, "finished": 0, "unfinished": false})
        );
        let asked: Vec<(i32, Value)> = cloud.asked();
        let nodes: Vec<&Value> = asked.iter().map(|(_, event)| &event["detail"]["instance-id"]).collect();
        assert_eq!(nodes, [&Value::Null, &json!(node_id(2)), &json!(node_id(3))]);
        assert!(
            asked
                .iter()
                .all(|(delay, event)| *delay == 0 && event["detail"]["overdue"] == true)
        );

        let events: Vec<String> = asked.iter().map(|(_, event)| event.to_string()).collect();
        assert!(cloud.batch(&events, 1).await.is_empty());
        let job = cloud.job();
        assert_eq!(
            (&job["targets"], &job["pulled"], &job["failed"]),
            (&json!(3), &json!(2), &json!(1))
        );
        assert_eq!(cloud.node(2)["images"][image(1)]["reason"], "overdue");

        // Nothing is left to be asked for.
        cloud.calls();
        assert_eq!(cloud.sweep(5200).await["asked"], 0);
        assert_eq!(calls_for_commands(&cloud), ["ListCommands", "BatchGetItem"]);
    }

    #[tokio::test]
    async fn a_command_whose_nodes_have_all_reported_is_marked_without_asking_ssm_for_them() {
        let cloud = cloud_with([(1, pulled()), (2, pulled())]);
        cloud
            .batch(&[event_of(1, 1), event_of(1, 2), event_of_command(1)], 1)
            .await;
        cloud.calls();
        assert_eq!(cloud.sweep(4300).await["commands"], 1);
        assert_eq!(calls_for_commands(&cloud), ["ListCommands", "BatchGetItem", "PutItem"]);
        assert!(cloud.row(&Key::swept(COMMAND)).is_some());
    }

    #[tokio::test]
    async fn a_command_within_its_deadline_or_none_of_ours_is_left_alone() {
        let cloud = cloud_with([(1, pulled())]);
        cloud.send(2, "by hand", &[1], [(1, pulled())]);
        assert_eq!(cloud.sweep(4199).await["commands"], 0);
        assert_eq!(cloud.sweep(4201).await["commands"], 1);
        assert!(cloud.row(&Key::swept(&command_id(2))).is_none());
    }

    #[tokio::test]
    async fn a_command_that_matched_no_node_and_whose_end_nobody_told_is_found() {
        let cloud = cloud_with([]);
        assert_eq!(cloud.sweep(4300).await["asked"], 1);
        let (_, event) = cloud.asked().remove(0);
        assert_eq!(event["detail-type"], "EC2 Command Status-change Notification");
        cloud.answer(&event.to_string()).await;
        assert_eq!(cloud.metric("CommandsWithoutNodes"), [1.0]);
    }

    #[tokio::test]
    async fn a_further_try_is_asked_for_where_its_node_knows_of_earlier_ones_only() {
        let cloud = cloud_with([(1, failed()), (2, failed())]);
        cloud
            .batch(&[event_of(1, 1), event_of(1, 2), event_of_command(1)], 1)
            .await;
        let comment = cloud.retries()[0].comment().to_string();
        cloud.send(2, &comment, &[1], [(1, pulled()), (2, pulled())]);
        cloud.batch(&[event_of(2, 1)], 1).await;
        assert_eq!(
            cloud.sweep(4300).await,
            json!({"commands": 2, "asked": 1, "finished": 0, "unfinished": false})
        );
        let (_, event) = cloud.asked().remove(0);
        assert_eq!(
            (&event["detail"]["command-id"], &event["detail"]["instance-id"]),
            (&json!(command_id(2)), &json!(node_id(2)))
        );
    }

    #[tokio::test]
    async fn every_page_of_commands_and_nodes_is_looked_at() {
        let cloud = cloud_with([
            (1, pulled()),
            (2, pulled()),
            (3, pulled()),
            (4, pulled()),
            (5, pulled()),
        ]);
        for k in 2..=7 {
            cloud.send(k, "push rule=default attempt=1", &[1], [(k, pulled())]);
        }
        cloud.state(|state| state.page = Some(2));
        assert_eq!(cloud.sweep(4300).await["asked"], 7 + 11);
        let calls = cloud.calls();
        assert_eq!(calls.iter().filter(|call| **call == "ListCommands").count(), 4);
        assert_eq!(
            calls.iter().filter(|call| **call == "ListCommandInvocations").count(),
            3 + 6
        );
        let several = calls.iter().filter(|call| **call == "SendMessageBatch").count();
        assert_eq!(several, 7 + 3 + 6);
    }

    #[tokio::test]
    async fn a_throttled_page_ends_the_sweep_and_the_next_one_takes_it_up() {
        for (call, before) in [
            ("ListCommands", 0),
            ("BatchGetItem", 0),
            ("ListCommandInvocations", 0),
            ("BatchGetItem", 1),
            ("SendMessageBatch", 0),
            ("SendMessageBatch", 1),
            ("PutItem", 0),
        ] {
            let cloud = cloud_with([(1, running())]);
            cloud.fail(call, before, THROTTLED);
            let swept = cloud.sweep(4300).await;
            assert_eq!(
                (&swept["commands"], &swept["unfinished"]),
                (&json!(0), &json!(true)),
                "{call}"
            );
            assert!(cloud.row(&Key::swept(COMMAND)).is_none());
            let swept = cloud.sweep(4300).await;
            assert_eq!((&swept["commands"], &swept["asked"]), (&json!(1), &json!(2)), "{call}");
        }
    }

    #[tokio::test]
    async fn a_sweep_whose_time_is_over_leaves_the_rest_to_the_next() {
        let cloud = cloud_with([(1, running())]);
        let now = requested_at() + TimeDelta::seconds(4300);
        let mut swept = Swept::default();
        let over = cloud.result.sweep_commands(now, Instant::now(), &mut swept).await;
        assert!(matches!(over, Err(SweepError::Time(_))));
        let over = cloud.result.sweep_outbox(now, Instant::now(), &mut swept).await;
        assert!(matches!(over, Err(SweepError::Time(_))));
        assert!(cloud.calls().is_empty());
        assert_eq!(swept.left, partitions(now));
        let silent = within(
            Instant::now() + Duration::from_millis(1),
            std::future::pending::<Result<(), _>>(),
        )
        .await;
        assert!(matches!(silent, Err(SweepError::Time(_))));
    }

    #[test]
    fn no_partition_is_always_the_last_to_be_looked_at_whatever_the_interval() {
        for minutes in [1, 15, 60, 240, 480, 720, 987] {
            let sweeps = (0..200).map(|k| partitions(requested_at() + TimeDelta::minutes(minutes) * k));
            let sweeps: Vec<String> = sweeps.collect();
            for place in [0, 15] {
                let there: BTreeSet<&str> = sweeps.iter().map(|order| &order[place..=place]).collect();
                assert_eq!(there.len(), 16, "every {minutes} minutes");
            }
            for order in sweeps {
                assert_eq!(order.chars().collect::<BTreeSet<_>>().len(), 16);
            }
        }
    }

    #[tokio::test]
    async fn a_partition_that_cannot_be_read_holds_up_no_other_and_is_said_to_be_left() {
        let cloud = cloud_with([(1, failed())]);
        cloud.fail("PutObject", 0, "SlowDown");
        cloud.batch(&[event_of(1, 1)], 1).await;
        let order = partitions(requested_at() + TimeDelta::minutes(16));
        let own = order.find(&COMMAND[..1]).unwrap();
        let other = usize::from(own == 0);
        cloud.fail("Query", other, THROTTLED);
        let swept = cloud.sweep(60 * 16).await;
        let expected =
            json!({"commands": 0, "asked": 0, "finished": 1, "unfinished": true, "left": &order[other..=other]});
        assert_eq!(swept, expected);
    }

    #[tokio::test]
    async fn what_cannot_be_finished_holds_up_nothing_else() {
        let cloud = cloud_with([(1, pulled()), (2, pulled())]);
        for node in [1, 2] {
            cloud.fail("PutObject", 0, "SlowDown");
            cloud.batch(&[event_of(1, node)], 1).await;
        }
        cloud.fail("PutObject", 0, "SlowDown");
        cloud.state(|state| state.table.page = Some(1));
        let swept = cloud.sweep(60 * 16).await;
        assert_eq!(
            (&swept["finished"], &swept["unfinished"], cloud.outboxes()),
            (&json!(1), &json!(true), 1)
        );
    }

    #[tokio::test]
    async fn what_was_left_undone_for_a_quarter_of_an_hour_is_done() {
        let cloud = cloud_with([(1, failed())]);
        cloud.fail("PutObject", 0, "SlowDown");
        cloud.batch(&[event_of(1, 1)], 1).await;
        assert_eq!(cloud.sweep(60 * 15).await["finished"], 0);
        cloud.fail("PutObject", 0, "SlowDown");
        assert_eq!(cloud.sweep(60 * 16).await["unfinished"], true);
        assert_eq!(cloud.sweep(60 * 16).await["finished"], 1);
        assert_eq!(
            (cloud.outboxes(), cloud.records().len(), cloud.retries().len()),
            (0, 1, 1)
        );
    }

    #[tokio::test]
    async fn what_a_later_try_of_the_node_hid_is_done_by_the_first_sweep_that_aws_does_not_refuse() {
        let cloud = cloud_with([(1, failed())]);
        cloud.fail("DeleteItem", 0, THROTTLED);
        cloud.batch(&[event_of(1, 1)], 1).await;
        let comment = format!("push rule=default attempt=2 job={COMMAND}");
        cloud.send(2, &comment, &[1], [(1, pulled())]);
        // The node's row names what was left by its last change only.
        assert!(cloud.batch(&[event_of(2, 1), event_of(1, 1)], 2).await.is_empty());
        assert_eq!(cloud.outboxes(), 1);
        for (is_refused, unfinished, left) in [(true, true, 1), (false, false, 0)] {
            if is_refused {
                cloud.fail("DeleteItem", 0, THROTTLED);
            }
            let swept = cloud.sweep(60 * 16).await;
            assert_eq!((&swept["unfinished"], cloud.outboxes()), (&json!(unfinished), left));
        }
    }

    impl Cloud {
        /// Sweeps so many seconds after the command was sent.
        async fn sweep(&self, seconds: i64) -> Value {
            self.answer_at(SWEEP, requested_at() + TimeDelta::seconds(seconds))
                .await
        }
    }

    fn cloud_with<const N: usize>(nodes: [(usize, Invocation); N]) -> Cloud {
        let cloud = Cloud::new();
        cloud.send(1, "push rule=default attempt=1", &[1], nodes);
        cloud
    }

    fn pulled() -> Invocation {
        Invocation::reporting(line(&image(1), "pulled", ""))
    }

    fn failed() -> Invocation {
        Invocation::reporting(line(&image(1), "failed", "registry"))
    }

    fn running() -> Invocation {
        Invocation::without_report("InProgress", "InProgress")
    }

    /// The calls of a sweep after those that look through the outbox, one for each of its partitions.
    fn calls_for_commands(cloud: &Cloud) -> Vec<&'static str> {
        let mut calls = cloud.calls();
        let of_commands = calls.split_off(OUTBOX_PARTITIONS.len());
        assert!(calls.iter().all(|call| *call == "Query"), "{calls:?}");
        of_commands
    }
}
