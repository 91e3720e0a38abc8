//! Rule images: what a rule brings to its nodes, by what these run.

mod rule_use;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use tracing::{info, warn};

use crate::{
    ecr::{ImagesError, Newest, NewestImages},
    error_text::error_text,
    image::Image,
    rows::UsageRow,
    rule::Rule,
    settings::{Settings, UsageSettings},
    usage::{RepositoryUse, Usage, UsageError},
};

pub use rule_use::{MAX_NEIGHBOURS, RuleUse, neighbours_first};

/// Decides which images a rule brings: the newest of repositories that its nodes run, and what these run.
pub struct RuleImages {
    newest: NewestImages,
    usage: Arc<Usage>,
    /// The host name of this account's registry in this Region.
    registry: String,
}

impl RuleImages {
    /// Asks the ECR of the configuration's Region, and the table of the settings.
    ///
    /// # Errors
    /// [`ImagesError::NoRegion`] where the configuration has none.
    pub fn new(config: &SdkConfig, settings: &Settings, usage: UsageSettings) -> Result<Self, ImagesError> {
        let newest = NewestImages::new(config, settings)?;
        let UsageSettings {
            table,
            within,
            registry,
        } = usage;
        Ok(Self::with(newest, Usage::new(config, &table, within), registry))
    }

    /// Asks these; the registry is this account's in this Region, by its host name.
    pub fn with(newest: NewestImages, usage: impl Into<Arc<Usage>>, registry: String) -> Self {
        Self {
            newest,
            usage: usage.into(),
            registry,
        }
    }

    /// Asks ECR for so long at most, and remembers of its answers as [`NewestImages::anew`] does.
    #[must_use]
    pub fn anew(&self, patience: Duration) -> Self {
        Self {
            newest: self.newest.anew(patience),
            usage: Arc::clone(&self.usage),
            registry: self.registry.clone(),
        }
    }

    /// Tells what is known of the use that a rule's nodes make of images, where that decides anything: by one Query, whose
    /// answer is remembered for 30 seconds.
    ///
    /// # Errors
    /// [`UsageError`] where DynamoDB cannot be asked.
    pub async fn known_use(&self, rule: &Rule, now: SystemTime) -> Result<RuleUse, UsageError> {
        if !rule.used && !rule.neighbours {
            return Ok(RuleUse::default());
        }
        Ok(RuleUse::new(self.usage.of_rule(&rule.name, now).await?, now))
    }

    /// Tells whether a rule takes a repository, by the use that its nodes make of it: by one Query, and one more where they
    /// make none and this process does not know of any use yet. Where DynamoDB cannot be asked, it does.
    pub async fn takes(&self, rule: &Rule, registry: &str, repository: &str, now: SystemTime) -> bool {
        if !rule.used {
            return true;
        }
        match self.usage.runs(&rule.name, registry, repository, now).await {
            Ok(used) => used != RepositoryUse::NotUsed,
            Err(error) => {
                warn!(
                    rule = rule.name,
                    "{repository} is taken as used: {}",
                    error_text(&error)
                );
                true
            }
        }
    }

    /// Names the newest images of the repositories that a rule takes, as far as ECR answers: of those that its nodes use, where
    /// it takes only such and their use is known.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR has to list the repositories and does not, and where its answer names no usable image.
    pub async fn newest(&self, rule: &Rule, used: &RuleUse, now: SystemTime) -> Result<Newest, ImagesError> {
        match used.repositories(rule, &self.registry) {
            Some(repositories) => self.newest.known_of_repositories(rule, &repositories, now).await,
            None => self.newest.known_of_rule(rule, now).await,
        }
    }

    /// Names the newest images of one repository, which the rule takes.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR's answer names no usable image.
    pub async fn newest_of_repository(
        &self,
        rule: &Rule,
        repository: &str,
        now: SystemTime,
    ) -> Result<Newest, ImagesError> {
        let repositories = [repository.to_owned()];
        self.newest.known_of_repositories(rule, &repositories, now).await
    }

    /// Gives what a rule's nodes run and a new one gets, that of most nodes first: at most [`MAX_NEIGHBOURS`].
    #[must_use]
    pub fn neighbours<'a>(&self, rule: &Rule, used: &'a RuleUse, now: SystemTime) -> Vec<&'a UsageRow> {
        let mut rows = used.neighbours(rule, &self.registry, now);
        if let Some(left_out) = rows.len().checked_sub(MAX_NEIGHBOURS).filter(|left_out| *left_out > 0) {
            info!(
                rule = rule.name,
                left_out,
                "rule {}: of what its nodes run, the {left_out} images of the fewest nodes are left out: {MAX_NEIGHBOURS} fit",
                rule.name
            );
        }
        rows.truncate(MAX_NEIGHBOURS);
        rows
    }

    /// Names the images of a new node, each once: what its neighbours run, that of most nodes first, and then the rule's newest,
    /// as far as ECR answers.
    pub async fn of_new_node(&self, rule: &Rule, used: &RuleUse, now: SystemTime) -> Newest {
        let newest = self.newest_or_none(rule, used, now).await;
        Newest {
            images: neighbours_first(&self.neighbours(rule, used, now), newest.images),
            missing: newest.missing,
        }
    }

    /// Names the same images apart: those that only its neighbours run, and the rule's newest, of which those that neighbours
    /// run come first.
    pub async fn of_new_node_apart(&self, rule: &Rule, used: &RuleUse, now: SystemTime) -> (Vec<Image>, Newest) {
        let newest = self.newest_or_none(rule, used, now).await;
        let of_rule: BTreeSet<Image> = newest.images.iter().cloned().collect();
        let all = neighbours_first(&self.neighbours(rule, used, now), newest.images);
        let (images, neighbours) = all.into_iter().partition(|image| of_rule.contains(image));
        (
            neighbours,
            Newest {
                images,
                missing: newest.missing,
            },
        )
    }

    async fn newest_or_none(&self, rule: &Rule, used: &RuleUse, now: SystemTime) -> Newest {
        let newest = self.newest(rule, used, now).await;
        newest.unwrap_or_else(|cause| Newest {
            images: Vec::new(),
            missing: Some(cause),
        })
    }
}
