//! Describes what was decided of rules, as it is answered and logged.

use prefetch::boot::Kept;
use serde::Serialize;

use crate::nodes::clusters::NoNodes;

/// Tells what was decided of every rule, and that the cluster has no nodes, where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    pub rules: Vec<Reconciled>,
    /// Tells what became of the rules' boot lists, where the stack keeps them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<Kept>,
    #[serde(flatten)]
    pub no_nodes: Option<NoNodes>,
}

/// Tells what was decided of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// The rule's name.
    pub rule: String,
    /// Says what was decided of it.
    #[serde(flatten)]
    pub decision: RuleDecision,
}

impl Reconciled {
    /// Names the rule where it failed, and says why.
    pub fn failed(&self) -> Option<String> {
        match &self.decision {
            RuleDecision::Failed { cause } => Some(format!("{} ({cause})", self.rule)),
            _ => None,
        }
    }
}

/// Tells what was decided of a rule, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum RuleDecision {
    /// Its newest images were sent.
    Sent {
        /// The commands, one for as many images as fit.
        commands: Vec<String>,
    },
    /// The stack observes: what would have been sent was recorded.
    Observed {
        /// The jobs, one for as many images as fit.
        commands: Vec<String>,
    },
    /// It names no image that exists.
    NoImages,
    /// It takes only what its nodes use, and they have not told yet what they run: they were asked.
    UsageUnknown,
    /// Says that what was sent last time has not ended, or another sends it now.
    StillRunning,
    /// AWS did not do as it was asked.
    Failed {
        /// Says why, without the names of anything.
        cause: String,
    },
}

impl RuleDecision {
    /// Returns why nothing is sent, where nothing is to be: the word by which it is known, and the same in words.
    pub fn why_nothing_is_sent(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::NoImages => Some(("no-images", "it names no image that exists")),
            Self::UsageUnknown => Some((
                "usage-unknown",
                "its nodes have not told yet what they run, and were asked: the next reconcile brings what they use",
            )),
            Self::StillRunning => Some(("still-running", "what was sent last time has not ended")),
            Self::Sent { .. } | Self::Observed { .. } | Self::Failed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_sent_is_told_by_the_word_that_the_answer_has_and_in_words() {
        for decision in [
            RuleDecision::NoImages,
            RuleDecision::UsageUnknown,
            RuleDecision::StillRunning,
        ] {
            let (reason, why) = decision.why_nothing_is_sent().unwrap();
            assert_eq!(json!(decision), json!({"decision": reason}));
            assert!(why.contains(' ') && !why.ends_with('.'), "{why}");
        }
        let sent = RuleDecision::Sent {
            commands: vec!["e8d3c0e4-71f7-4491-898f-c9b35bee5f3b".to_owned()],
        };
        assert_eq!(sent.why_nothing_is_sent(), None);
    }
}
