//! Boots: what user data brought before kubelet started, as a later command of the node reports it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    command::{Trigger, unsent_id},
    image::Image,
    outcome::{Boot, Line},
    rows::Outcome,
    rule::is_name,
};

use crate::{
    event::Ended,
    observation::{Finding, Found, Job, Report},
    report::reported,
};

/// How long before the command that brings it a boot is believed to have been: a node's clock may be wrong until it is set.
const BELIEVED: TimeDelta = TimeDelta::days(7);

/// Holds what a command's report says of the node's boots.
#[derive(Debug, Default)]
pub struct Boots(BTreeMap<Boot, BTreeMap<Image, Outcome>>);

impl Boots {
    /// Takes a line of a boot; returns false where it is of none, or of a rule whose name is none.
    pub fn take(&mut self, mut line: Line) -> bool {
        let Some(boot) = line.boot.take().filter(|boot| is_name(&boot.rule)) else {
            return false;
        };
        let (image, outcome) = reported(line, 1);
        self.0.entry(boot).or_default().insert(image, outcome);
        true
    }

    /// Tells what is found of each boot: a job of its own, which is the same whichever command of the node brings it.
    pub fn findings(self, ended: &Ended, node: &str, ended_at: DateTime<Utc>) -> Vec<Finding> {
        let of_boot = |(boot, outcomes): (Boot, BTreeMap<Image, Outcome>)| {
            let within = |moment: DateTime<Utc>| moment.clamp(ended_at - BELIEVED, ended_at);
            let moments = [boot.began, boot.ended].map(|moment| moment.timestamp().to_string());
            Finding {
                ended: ended.clone(),
                job: Job {
                    id: unsent_id(&["boot", node, &boot.rule, &moments[0], &moments[1]]),
                    trigger: Trigger::Boot,
                    rule: boot.rule,
                    requested_at: within(boot.began),
                    requested_by: None,
                },
                found: Found::Node(Report {
                    node: node.to_owned(),
                    attempt: 1,
                    ended_at: within(boot.ended),
                    outcomes,
                }),
            }
        };
        self.0.into_iter().map(of_boot).collect()
    }
}
