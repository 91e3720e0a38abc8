//! The context: everything that the function works with, of which each part takes what it uses.

use chrono::{DateTime, Utc};

use crate::{
    effects::Effects, launch_hook::LaunchHook, settings::Settings, sweep::Sweep, table::Table, usage_rows::UsageRows,
};

/// Holds the function's clients and settings.
pub struct NodeResult {
    pub ssm: aws_sdk_ssm::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    /// The hook in which instances wait for their launch, where there is one.
    pub hook: Option<LaunchHook>,
    pub table: Table,
    /// The rows of what nodes run, as far as this process knows them.
    pub usage: UsageRows,
    pub settings: Settings,
}

impl NodeResult {
    pub fn effects(&self) -> Effects<'_> {
        Effects {
            s3: &self.s3,
            sqs: &self.sqs,
            hook: self.hook.as_ref(),
            table: &self.table,
            settings: &self.settings,
        }
    }

    /// Begins a sweep at this moment.
    pub fn sweep(&self, now: DateTime<Utc>) -> Sweep<'_> {
        Sweep::new(&self.ssm, self.effects(), now)
    }
}
