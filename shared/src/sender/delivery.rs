//! Delivery: for one instance SSM and IAM reject a command with all its others, which are sent it all the same.

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{
    client::{Backend, Sender},
    doubt::watched,
    error::SendError,
    order::Order,
};
use crate::{
    command::Destination,
    error_text::error_text,
    settings::Settings,
    ssm::{SsmError, is_online, managed_nodes},
};

/// Holds what became of an order: each of its instances is in one of the lists, once.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The ids of commands, and where each went: one, but for instances that SSM refuses without naming them.
    pub sent: Vec<(String, Destination)>,
    /// The instances that got none, and why.
    pub refused: Vec<(String, Refusal)>,
    /// Where no command went, and why not; a retry may fare better.
    pub failed: Vec<(Destination, SendError)>,
    /// Tells whether SSM may have taken a command of it without saying so, be it at a try of the SDK's before the last.
    pub is_in_doubt: bool,
}

/// Tells why an instance got no command.
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
            let (sent, is_in_doubt) = watched(self.send(settings, order, now)).await;
            delivery.is_in_doubt |= is_in_doubt || sent.as_ref().is_err_and(SendError::may_be_sent);
            match sent {
                Ok(command) => delivery.sent.push((command, destination)),
                Err(error) => match self.refused(destination.ids(), error).await {
                    Err(error) => delivery.failed.push((destination, error)),
                    Ok((refused, refusal)) => {
                        let others = destination.ids().iter().filter(|id| !refused.contains(id));
                        let others: Vec<String> = others.cloned().collect();
                        let together = if refused.is_empty() {
                            others.len().div_ceil(2)
                        } else {
                            others.len().max(1)
                        };
                        let groups = others.chunks(together).map(<[String]>::to_vec);
                        pending.extend(groups.map(Destination::Instances));
                        delivery.refused.extend(refused.into_iter().map(|id| (id, refusal)));
                    }
                },
            }
        }
        delivery
    }

    /// Finds out which instances a command is refused for, and why; none where that cannot be told of any of several.
    ///
    /// # Errors
    /// The error where it is of no instance, [`SendError::Nodes`] where SSM cannot be asked.
    async fn refused(&self, ids: &[String], error: SendError) -> Result<(Vec<String>, Refusal), SendError> {
        let (mut refused, refusal) = match &error {
            _ if ids.is_empty() => return Err(error),
            SendError::AccessDenied { instance, .. } => {
                warn!(instance.id = instance, "{}", error_text(&error));
                let named = ids.iter().filter(|id| *id == instance);
                (named.cloned().collect(), Refusal::AccessDenied)
            }
            SendError::InvalidInstance(_) => {
                let offline = self.offline(ids).await;
                let offline = offline.map_err(|error| SendError::Nodes(Box::new(error)))?;
                let refusal = if offline.is_empty() {
                    Refusal::Invalid
                } else {
                    Refusal::NotOnline
                };
                (offline, refusal)
            }
            _ => return Err(error),
        };
        if let ([alone], []) = (ids, &refused[..]) {
            refused.push(alone.clone());
        }
        Ok((refused, refusal))
    }

    async fn offline(&self, ids: &[String]) -> Result<Vec<String>, SsmError> {
        let Backend::Send(client) = &self.0 else {
            return Ok(Vec::new());
        };
        let managed = managed_nodes(client, ids).await?;
        let offline = ids.iter().filter(|id| !managed.get(*id).is_some_and(is_online));
        Ok(offline.cloned().collect())
    }
}
