//! The boot lists in a reconcile: what was there before ECR is asked, and what is written after.

use std::{collections::BTreeMap, time::SystemTime};

use chrono::{DateTime, Utc};
use prefetch::{
    boot::{BootError, BootLists, Decision, Kept, Stored},
    error_text::error_text,
    rule_images::RuleImages,
    settings::Settings,
};
use tracing::error;

/// Holds the lists as they were before ECR was asked, by the names of their rules.
type Before = Result<BTreeMap<String, Stored>, BootError>;

/// Holds the lists, and what there was of them; nothing where the stack keeps none.
pub struct BootTurn<'a>(Option<(&'a BootLists, Before)>);

impl<'a> BootTurn<'a> {
    /// Reads what is there; one GetParametersByPath for each ten rules, where the stack keeps lists.
    pub async fn begin(lists: Option<&'a BootLists>) -> Self {
        match lists {
            Some(lists) => Self(Some((lists, lists.read().await))),
            None => Self(None),
        }
    }

    /// Makes the lists what they should be, by what ECR was asked since.
    pub async fn end(self, settings: &Settings, images: &RuleImages, now: DateTime<Utc>) -> Vec<Kept> {
        match self.0 {
            None => Vec::new(),
            Some((lists, Ok(stored))) => lists.reconcile(settings, images, stored, SystemTime::from(now)).await,
            Some((_, Err(cause))) => {
                error!(reason = "aws-error", "boot lists: {}", error_text(&cause));
                let all = settings.rules.iter().map(|rule| Kept {
                    rule: rule.name.clone(),
                    decision: Decision::Failed {
                        cause: cause.to_string(),
                    },
                });
                all.collect()
            }
        }
    }
}

/// Names the list where it could not be kept.
pub fn failed(kept: &Kept) -> Option<String> {
    matches!(kept.decision, Decision::Failed { .. }).then(|| format!("boot list of {}", kept.rule))
}
