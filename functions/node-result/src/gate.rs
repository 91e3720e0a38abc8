//! The gate: a further try that has waited goes to the node queue, unless its job was cancelled meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use prefetch::{retry::Retry, rows::Key};

use crate::{
    decision::{Decision, Queued, Reason},
    effects::MAX_MESSAGES,
    handler::{NodeResult, aws_error},
    retry::Delayed,
};

impl NodeResult {
    /// Lets those further tries through whose jobs are not cancelled, each to be seen at once.
    ///
    /// It costs one BatchGetItem for each 100 jobs, and one SendMessageBatch for each ten tries. A try that is let through
    /// twice finds the images there.
    pub async fn pass(&self, retries: &BTreeSet<Retry>) -> BTreeMap<Retry, Decision> {
        let key = |retry: &Retry| Key::cancelled(&retry.job);
        let rows = match self.store.read(&retries.iter().map(key).collect()).await {
            Ok(rows) => rows,
            Err(error) => return of_all(retries, |_| aws_error(&error)),
        };
        let (cancelled, due): (Vec<&Retry>, Vec<&Retry>) = retries.iter().partition(|retry| rows.contains(&key(retry)));
        let mut decisions = of_all(cancelled, |retry| {
            Decision::dropped(Reason::Cancelled, format!("job {} was cancelled", retry.job))
        });
        for due in due.chunks(MAX_MESSAGES) {
            decisions.extend(self.queue(due).await);
        }
        decisions
    }

    async fn queue(&self, retries: &[&Retry]) -> BTreeMap<Retry, Decision> {
        let messages: Vec<Delayed> = retries.iter().map(|retry| Delayed::now(retry)).collect();
        let sent = self.send(&self.settings.node_queue, &messages).await;
        of_all(retries.iter().copied(), |retry| match &sent {
            Ok(()) => Decision::Queued(Queued::new(retry)),
            Err(error) => aws_error(error),
        })
    }
}

fn of_all<'a>(
    retries: impl IntoIterator<Item = &'a Retry>,
    decision: impl Fn(&Retry) -> Decision,
) -> BTreeMap<Retry, Decision> {
    let decided = retries.into_iter().map(|retry| (retry.clone(), decision(retry)));
    decided.collect()
}
