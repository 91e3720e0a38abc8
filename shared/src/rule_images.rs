//! Rule images: what a rule brings to its nodes, by what these run.

mod central;
mod rule_use;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use futures_util::future::join;
use tracing::{info, warn};

use crate::{
    ecr::{ImagesError, Newest, NewestImages, Registries},
    error_text::error_text,
    image::Image,
    named_images::NamedImages,
    rows::UsageRow,
    rule::Rule,
    settings::{Settings, UsageSettings},
    usage::{RepositoryUse, Usage, UsageError},
};

pub use central::{CentralImages, wants_a_listing};
pub use rule_use::{MAX_NEIGHBOURS, RuleUse, brings_from, neighbours_first};

/// Decides which images a rule brings: the newest of repositories that its nodes run, and what these run.
pub struct RuleImages {
    newest: NewestImages,
    usage: Arc<Usage>,
    named: Arc<NamedImages>,
    /// The host name of this account's registry in this Region.
    registry: String,
    /// The registries beside it.
    central: Vec<CentralImages>,
}

impl RuleImages {
    /// Asks the ECR of the configuration's Region, the central registries of the settings, and their table.
    ///
    /// # Errors
    /// [`ImagesError::NoRegion`] where the configuration has none.
    pub fn new(config: &SdkConfig, settings: &Settings, usage: &UsageSettings) -> Result<Self, ImagesError> {
        let table = Usage::new(config, &usage.table, usage.within);
        Self::with_usage(config, settings, usage, table)
    }

    /// Asks the same, and this of what nodes run.
    ///
    /// # Errors
    /// [`ImagesError::NoRegion`] where the configuration has none.
    pub fn with_usage(
        config: &SdkConfig,
        settings: &Settings,
        usage: &UsageSettings,
        table: impl Into<Arc<Usage>>,
    ) -> Result<Self, ImagesError> {
        let region = config.region().ok_or(ImagesError::NoRegion)?.to_string();
        let registries = Registries::new(&NewestImages::config(config), usage);
        let newest = NewestImages::of(registries.own().clone(), region, settings);
        let images = Self::with(newest, table, usage.registry.clone());
        Ok(images.and_central(settings, &registries))
    }

    /// Names the newest images of central registries too; says of which rules it cannot tell all.
    #[must_use]
    pub fn and_central(mut self, settings: &Settings, registries: &Registries) -> Self {
        for (central, registry) in registries.central() {
            let newest = NewestImages::of(registry.clone(), central.region.clone(), settings).beside(&self.newest);
            self.central.push(CentralImages::new(central, newest));
            let is_unlisted = |rule: &&Rule| wants_a_listing(rule) && brings_from(rule, &self.registry, &central.host);
            for rule in settings.rules.iter().filter(is_unlisted) {
                info!(
                    rule = rule.name,
                    "rule {}: of {}, whose repositories are not listed, it brings the newest images of those that its nodes use",
                    rule.name,
                    central.host
                );
            }
        }
        self
    }

    /// Asks these; the registry is this account's in this Region, by its host name.
    pub fn with(newest: NewestImages, usage: impl Into<Arc<Usage>>, registry: String) -> Self {
        let usage: Arc<Usage> = usage.into();
        Self {
            newest,
            named: Arc::new(usage.named_images()),
            usage,
            registry,
            central: Vec::new(),
        }
    }

    /// Asks ECR for so long at most, and remembers of its answers as [`NewestImages::anew`] does.
    #[must_use]
    pub fn anew(&self, patience: Duration) -> Self {
        Self {
            newest: self.newest.anew(patience),
            usage: Arc::clone(&self.usage),
            named: Arc::clone(&self.named),
            registry: self.registry.clone(),
            central: self.central.iter().map(|central| central.anew(patience)).collect(),
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

    /// Gives the images that rules name themselves.
    #[must_use]
    pub fn named(&self) -> &NamedImages {
        &self.named
    }

    /// Returns true where a rule brings from a registry.
    #[must_use]
    pub fn brings_from(&self, rule: &Rule, host: &str) -> bool {
        brings_from(rule, &self.registry, host)
    }

    /// Tells whether a rule takes a repository, because it names an image of it or by the use that its nodes make of it: by one
    /// Query, and one more where they make none and this process does not know of any use yet. Where DynamoDB cannot be asked,
    /// it does.
    pub async fn takes(&self, rule: &Rule, registry: &str, repository: &str, now: SystemTime) -> bool {
        if !rule.used || rule.names(registry, repository, &self.registry) {
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

    /// Names the images that a rule names itself, without those that ECR would name.
    ///
    /// # Errors
    /// [`ImagesError`] where DynamoDB cannot be asked.
    pub async fn named_alone(&self, rule: &Rule, now: SystemTime) -> Result<Newest, ImagesError> {
        Ok(Newest {
            images: self.named.of_rule(rule, now).await?,
            missing: None,
        })
    }

    /// Names the images that a rule names itself, and the newest of the repositories that it takes, as far as ECR answers: of
    /// those that its nodes use, where it takes only such and their use is known.
    ///
    /// # Errors
    /// [`ImagesError`] where DynamoDB cannot be asked, and, where the rule names no image itself, where ECR has to list the
    /// repositories and does not, or its answer names no usable image.
    pub async fn newest(&self, rule: &Rule, used: &RuleUse, now: SystemTime) -> Result<Newest, ImagesError> {
        let named = self.named.of_rule(rule, now).await?;
        let own = async {
            match used.repositories(rule, &self.registry) {
                Some(repositories) => {
                    let repositories = self.with_named(rule, repositories, &named);
                    self.newest.known_of_repositories(rule, &repositories, now).await
                }
                None => self.newest.known_of_rule(rule, now).await,
            }
        };
        let central = central::newest(&self.central, &self.registry, (rule, used), now);
        let (own, central) = join(own, central).await;
        let newest = central::joined(own, central);
        let newest = newest.or_else(|cause| {
            if named.is_empty() {
                Err(cause)
            } else {
                Ok(Newest::unknown(cause))
            }
        });
        Ok(newest?.after(named))
    }

    /// Puts this registry's repositories beside those that a rule takes of which it names images itself.
    fn with_named(&self, rule: &Rule, mut repositories: Vec<String>, named: &[Image]) -> Vec<String> {
        let own = named.iter().filter(|image| image.registry() == self.registry);
        let taken = own
            .map(Image::repository)
            .filter(|name| rule.repositories.matches(name));
        for name in taken {
            if repositories.iter().all(|known| known != name) {
                repositories.push(name.to_owned());
            }
        }
        repositories
    }

    /// Names the newest images of an image's repository, which the rule takes, of this account's registry or a central one.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR's answer names no usable image.
    pub async fn newest_of_repository(
        &self,
        rule: &Rule,
        image: &Image,
        now: SystemTime,
    ) -> Result<Newest, ImagesError> {
        let central = self.central.iter().find(|central| central.host == image.registry());
        let newest = central.map_or(&self.newest, |central| &central.newest);
        let repositories = [image.repository().to_owned()];
        newest.known_of_repositories(rule, &repositories, now).await
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
        self.newest(rule, used, now).await.unwrap_or_else(Newest::unknown)
    }
}
