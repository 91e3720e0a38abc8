//! The context in which a request is sent: its clients, its lease and where it comes from.

use chrono::{DateTime, Utc};
use prefetch::{command::Trigger, rule::Rule, sender::Sender, settings::Settings};
use serde_json::json;

use crate::{http::problem::Problem, store::Store, submit::idempotency::lease::RequestLease};

/// Tells where a request comes from.
pub struct Origin {
    pub trigger: Trigger,
    /// Who requested it, where that is known.
    pub requested_by: Option<String>,
    /// Says what tells a request from every other, however often it comes.
    pub occasion: String,
    pub now: DateTime<Utc>,
}

/// Holds what one request is sent by.
pub struct SendContext<'a> {
    pub sender: &'a Sender,
    pub ssm: &'a aws_sdk_ssm::Client,
    pub store: &'a Store,
    pub settings: &'a Settings,
    pub origin: Origin,
    /// The lease of its idempotency key, where it has one.
    pub lease: Option<&'a RequestLease>,
}

impl SendContext<'_> {
    /// Finds a rule of a plan, which may be older than the rules.
    ///
    /// # Errors
    /// A 400 where it is no more.
    pub fn rule(&self, name: &str) -> Result<&Rule, Problem> {
        let rule = self.settings.rules.iter().find(|rule| rule.name == name);
        rule.ok_or_else(|| Problem::field("rule", Some(json!(name)), "a rule that is there still"))
    }

    /// Says what to do about a command that may have been sent.
    pub fn advice(&self) -> &'static str {
        if self.lease.is_some() {
            "what is named as unknown may have been sent: the same request with its Idempotency-Key finds it, and sends the rest"
        } else {
            "what is named as unknown may have been sent, and is listed then: the same request sends it again, which costs a node that has it nothing; with an Idempotency-Key it would find it"
        }
    }
}
