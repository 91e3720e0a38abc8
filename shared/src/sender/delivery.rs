//! Delivery: for one instance SSM and IAM reject a command with all its others, which are sent it all the same.

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{Order, SendError, Sender, Way};
use crate::{
    command::Destination,
    report::report,
    settings::Settings,
    ssm::{SsmError, is_online, managed_nodes},
};

/// What became of an order: each of its instances is in one of the lists, once.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The ids of commands, and where each went: one, but for instances that SSM refuses without naming them.
    pub sent: Vec<(String, Destination)>,
    /// The instances that got none, and why.
    pub refused: Vec<(String, Refusal)>,
    /// Where no command went, and why not; another try may fare better.
    pub failed: Vec<(Destination, SendError)>,
}

/// Why an instance got no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// IAM does not permit the command on it.
    AccessDenied,
    /// SSM does not reach it any more.
    NotOnline,
    /// SSM refuses it although it is online.
    Invalid,
}

impl Sender {
    /// Sends an order, and where instances of it are refused, sends it to the others.
    ///
    /// IAM names one refused instance at a time, which is left out. SSM names none: it is asked who is online, and where that
    /// explains nothing the instances are halved until the refused one stands alone.
    ///
    /// Costs one SendCommand, one more for each instance that IAM refuses, and for one that SSM refuses a
    /// DescribeInstanceInformation and a SendCommand, or some six of both.
    pub async fn deliver(&self, settings: &Settings, order: Order<'_>, now: DateTime<Utc>) -> Delivery {
        let mut delivery = Delivery::default();
        let mut pending = vec![order.destination.clone()];
        while let Some(destination) = pending.pop() {
            let order = Order {
                destination: destination.clone(),
                ..order.clone()
            };
            match self.send(settings, order, now).await {
                Ok(command) => delivery.sent.push((command, destination)),
                Err(error) => {
                    let others = self.without_refused(destination, error, &mut delivery).await;
                    pending.extend(others.into_iter().map(Destination::Instances));
                }
            }
        }
        delivery
    }

    /// Finds the instances that are refused, and gives the others, in groups that are worth a command each.
    async fn without_refused(
        &self,
        destination: Destination,
        error: SendError,
        delivery: &mut Delivery,
    ) -> Vec<Vec<String>> {
        let ids = destination.ids();
        let (refused, refusal) = match &error {
            SendError::AccessDenied { instance, .. } => {
                warn!(instance.id = instance, "{}", report(&error));
                let named = ids.iter().filter(|id| *id == instance).cloned().collect();
                (named, Refusal::AccessDenied)
            }
            SendError::InvalidInstance(_) => match self.offline(ids).await {
                Ok(offline) if offline.is_empty() => (offline, Refusal::Invalid),
                Ok(offline) => (offline, Refusal::NotOnline),
                Err(error) => {
                    delivery.failed.push((destination, SendError::Nodes(Box::new(error))));
                    return Vec::new();
                }
            },
            _ => {
                delivery.failed.push((destination, error));
                return Vec::new();
            }
        };
        let groups = match (refused.is_empty(), ids.len()) {
            (true, 0) => {
                delivery.failed.push((destination, error));
                return Vec::new();
            }
            (true, 1) => {
                delivery.refused.push((ids[0].clone(), refusal));
                return Vec::new();
            }
            (true, count) => ids.chunks(count.div_ceil(2)).map(<[String]>::to_vec).collect(),
            (false, _) => {
                let others: Vec<String> = ids.iter().filter(|id| !refused.contains(id)).cloned().collect();
                if others.is_empty() { Vec::new() } else { vec![others] }
            }
        };
        delivery.refused.extend(refused.into_iter().map(|id| (id, refusal)));
        groups
    }

    async fn offline(&self, ids: &[String]) -> Result<Vec<String>, SsmError> {
        let Way::Send(client) = &self.0 else {
            return Ok(Vec::new());
        };
        let managed = managed_nodes(client, ids).await?;
        let offline = ids.iter().filter(|id| !managed.get(*id).is_some_and(is_online));
        Ok(offline.cloned().collect())
    }
}
