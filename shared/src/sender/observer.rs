//! The observer: what would have been sent becomes a row, a line of the log and a metric.

use aws_sdk_dynamodb::{
    Client,
    operation::transact_write_items::TransactWriteItemsError,
    types::{Put, TransactWriteItem, builders::PutBuilder},
};
use chrono::{DateTime, SecondsFormat, Utc};
use tracing::info;

use super::{error::SendError, order::Order};
use crate::{
    command::{Destination, unsent_id},
    expiry::expires_at,
    image::Image,
    metrics::Metrics,
    rows::{Item, Key, Observed},
    settings::{Mode, Outcomes, Settings},
};

/// Records what would have been sent.
#[derive(Debug)]
pub struct Observer {
    client: Client,
    outcomes: Outcomes,
}

impl Observer {
    pub fn new(client: Client, outcomes: Outcomes) -> Self {
        Self { client, outcomes }
    }

    /// Records an order as a job, and gives the job's id; counts and logs it where it was not recorded before.
    ///
    /// # Errors
    /// [`SendError::Record`] where DynamoDB does not take it.
    pub async fn observe(
        &self,
        settings: &Settings,
        order: Order<'_>,
        now: DateTime<Utc>,
    ) -> Result<String, SendError> {
        let id = id(&order);
        if self.record(&id, &order, now).await? {
            tell(&id, &order, settings, now);
        } else {
            info!(job.id = id, "job {id} is observed already");
        }
        Ok(id)
    }

    /// Writes the job's row, and the one that lists it; gives false where they are there.
    async fn record(&self, id: &str, order: &Order<'_>, now: DateTime<Utc>) -> Result<bool, SendError> {
        let expiry = (now + self.outcomes.retention).timestamp();
        let row = serde_dynamo::to_item(row(order, expiry, now)).expect("a job is an item");
        let job = self
            .put(&Key::job(id), row)
            .condition_expression("attribute_not_exists(pk)");
        let expiry = ("expires_at".to_owned(), expires_at(now + self.outcomes.retention));
        let listed = self.put(&Key::observed(id, now), [expiry].into());
        let request = self
            .client
            .transact_write_items()
            .transact_items(item(job))
            .transact_items(item(listed))
            // The same order at another time is another transaction, which the condition ends.
            .client_request_token(unsent_id(&[id, &now.to_rfc3339_opts(SecondsFormat::Nanos, true)]));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(is_there) => Ok(false),
            Err(error) => Err(SendError::Record(Box::new(error))),
        }
    }

    fn put(&self, key: &Key, mut row: Item) -> PutBuilder {
        row.extend(key.item());
        Put::builder().table_name(&self.outcomes.table).set_item(Some(row))
    }
}

fn tell(id: &str, order: &Order<'_>, settings: &Settings, now: DateTime<Utc>) {
    let (rule, trigger) = (&order.rule.name, order.comment.trigger);
    let digest = match order.images {
        [image] => Some(image.digest()),
        _ => None,
    };
    info!(
        job.id = id,
        rule,
        trigger = trigger.to_string(),
        attempt = order.comment.attempt,
        images = order.images.len(),
        image.digest = digest,
        "would send {} by rule {rule} to {}",
        named(order.images),
        order.destination
    );
    let metrics = Metrics::new(&settings.cluster.name);
    let names = [("Rule", rule.clone()), ("Trigger", trigger.to_string())];
    let mut line = metrics.line(now).by(names).about("job.id", id);
    line.count("CommandsObserved", 1);
    line.print();
}

fn named(images: &[Image]) -> String {
    match images {
        [image] => image.to_string(),
        images => format!("{} images", images.len()),
    }
}

fn row(order: &Order<'_>, expires_at: i64, now: DateTime<Utc>) -> Observed {
    Observed {
        mode: Mode::Observe,
        trigger: order.comment.trigger,
        rule: order.rule.name.clone(),
        requested_at: now,
        images: order.images.to_vec(),
        destination: order.destination.clone(),
        targets: match &order.destination {
            Destination::Selected(_) => None,
            Destination::Instances(ids) => Some(ids.len()),
        },
        attempt: order.comment.attempt,
        retry_of: order.comment.job.clone(),
        expires_at,
    }
}

fn item(put: PutBuilder) -> TransactWriteItem {
    let put = put.build().expect("table and item are set");
    TransactWriteItem::builder().put(put).build()
}

fn is_there(error: &TransactWriteItemsError) -> bool {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error else {
        return false;
    };
    let mut reasons = cancelled.cancellation_reasons().iter();
    reasons.any(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

/// Gives the id of an order as a job: the same for the same order on the same occasion.
fn id(order: &Order<'_>) -> String {
    let images: Vec<String> = order.images.iter().map(ToString::to_string).collect();
    unsent_id(&[
        order.occasion,
        &order.comment.to_string(),
        &images.join(" "),
        &order.destination.to_string(),
    ])
}
