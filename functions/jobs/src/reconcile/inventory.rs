//! The inventory: nodes of a rule tell what they run.

use chrono::{DateTime, Utc};
use prefetch::{
    command::{Comment, Destination, Trigger},
    lease::stamp,
    node::NodeSelector,
    rule::Rule,
    sender::{Order, SendError, Sender},
    settings::Settings,
};

use crate::{log::log_sent, reconcile::send::is_late};

/// Has the nodes of a rule tell what they run, where the rule goes by that: one SendCommand, which brings nothing, ends in
/// milliseconds, and is no job. A stack that observes sends none.
///
/// # Errors
/// [`SendError`] where it was not sent.
pub async fn ask_for_inventory(
    sender: &Sender,
    settings: &Settings,
    rule: &Rule,
    now: DateTime<Utc>,
) -> Result<(), SendError> {
    if !(rule.used || rule.neighbours) || sender.observes() || is_late() {
        return Ok(());
    }
    let order = Order {
        rule,
        comment: &Comment::first(Trigger::Inventory, rule),
        images: &[],
        destination: Destination::Selected(NodeSelector::new(&settings.cluster, rule)),
        occasion: &stamp(now),
    };
    let command = sender.send(settings, order, now).await?;
    log_sent(&command, &rule.name, 0);
    Ok(())
}
