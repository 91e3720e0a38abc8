//! Central registries: which of their repositories' newest images a rule brings.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::rule_use::{RuleUse, brings_from, taken};
use crate::{
    ecr::{ImagesError, Newest, NewestImages},
    rule::Rule,
    settings::CentralRegistry,
};

/// The newest images of a central registry's repositories.
pub struct CentralImages {
    /// The registry's host name.
    pub(super) host: String,
    pub(super) newest: NewestImages,
}

impl CentralImages {
    /// Names a registry's newest images.
    #[must_use]
    pub fn new(registry: &CentralRegistry, newest: NewestImages) -> Self {
        let host = registry.host.clone();
        Self { host, newest }
    }

    pub(super) fn anew(&self, patience: Duration) -> Self {
        Self {
            host: self.host.clone(),
            newest: self.newest.anew(patience),
        }
    }

    /// Names the repositories whose newest images a rule brings: those that its nodes use, and, where it takes others too or
    /// nothing is known of their use, those that it names without a wildcard. Another account's repositories are not listed:
    /// policies of theirs allow no such thing.
    fn repositories(&self, rule: &Rule, used: &RuleUse) -> Vec<String> {
        if let Some(repositories) = used.repositories(rule, &self.host) {
            return repositories;
        }
        taken(rule, rule.repositories.plain().chain(used.in_registry(&self.host)))
    }

    async fn newest(&self, rule: &Rule, used: &RuleUse, now: SystemTime) -> Newest {
        let repositories = self.repositories(rule, used);
        if repositories.is_empty() {
            return Newest::default();
        }
        let newest = self.newest.known_of_repositories(rule, &repositories, now).await;
        newest.unwrap_or_else(Newest::unknown)
    }
}

/// Names a rule's newest images in central registries, of all at once.
pub(super) async fn newest(
    central: &[CentralImages],
    own: &str,
    (rule, used): (&Rule, &RuleUse),
    now: SystemTime,
) -> Vec<Newest> {
    let central = central.iter().filter(|central| brings_from(rule, own, &central.host));
    join_all(central.map(|central| central.newest(rule, used, now))).await
}

/// Puts what central registries answer after what this account's does.
///
/// # Errors
/// [`ImagesError`] where this account's answers nothing, and no other names an image.
pub(super) fn joined(own: Result<Newest, ImagesError>, central: Vec<Newest>) -> Result<Newest, ImagesError> {
    let mut all = match own {
        Err(cause) if central.iter().all(|newest| newest.images.is_empty()) => return Err(cause),
        own => own.unwrap_or_else(Newest::unknown),
    };
    for newest in central {
        all.images.extend(newest.images);
        all.missing = all.missing.or(newest.missing);
    }
    Ok(all)
}

/// Returns true where a rule would take whatever a central registry has, whose repositories are not listed: it takes what is
/// not used, and names no repository without a wildcard.
#[must_use]
pub fn wants_a_listing(rule: &Rule) -> bool {
    !rule.used && rule.repositories.plain().next().is_none()
}

#[cfg(all(test, feature = "mocks"))]
mod tests;
