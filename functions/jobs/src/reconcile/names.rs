//! The images that rules name themselves: what they are now, as ECR and nodes tell.

use std::{collections::BTreeMap, time::SystemTime};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use prefetch::{
    ecr::ImagesError,
    error_text::error_text,
    named_images::NamedRow,
    node::{Cluster, NodeSelector},
    requested_image::RequestedImage,
    resolve::{LookedUp, look_up},
    rows::{Item, Key},
    rule::Rule,
    rule_images::RuleImages,
    tags::{Nodes, ResolvedTags, TagResolver, TagsError, is_settled},
};
use tracing::info;

use crate::store::Store;

/// Limits for how many rules it is asked side by side, each of which sends a command for every ten tags.
const AT_ONCE: usize = 5;

/// Holds what the images that rules name are found out by.
#[derive(Clone, Copy)]
pub struct NamedImageFinder<'a> {
    pub ecr: &'a aws_sdk_ecr::Client,
    pub tags: &'a TagResolver,
    pub images: &'a RuleImages,
    pub store: &'a Store,
    pub cluster: &'a Cluster,
    /// The host name of this account's registry.
    pub registry: &'a str,
}

impl NamedImageFinder<'_> {
    /// Finds out what the images of all rules are, side by side: nodes whose registry is down take seconds to say so, and the
    /// rules that come after have the time of the same reconcile. Gives what went wrong, by the rules' names.
    pub async fn find_all(&self, rules: &[Rule], now: DateTime<Utc>) -> BTreeMap<String, ImagesError> {
        let found = rules.iter().map(async |rule| {
            let wrong = self.find(rule, now).await.err()?;
            Some((rule.name.clone(), wrong))
        });
        let found = stream::iter(found).buffer_unordered(AT_ONCE);
        found.filter_map(async |wrong| wrong).collect().await
    }

    /// Finds out what the images are that a rule names itself, and keeps that for launches, bakes and boot lists. What cannot be
    /// told this time stays as it was, unless the image is no more.
    ///
    /// Costs nothing where a rule names none, else what [`look_up`] and [`TagResolver::resolve`] take, a Query and a PutItem.
    ///
    /// # Errors
    /// [`ImagesError`] that names each image that is not known and why; none of those is where no node is there to ask.
    async fn find(&self, rule: &Rule, now: DateTime<Utc>) -> Result<(), ImagesError> {
        if rule.images.is_empty() {
            return Ok(());
        }
        let unresolved = |why: String| ImagesError::Unresolved(rule.name.clone(), why);
        let looked_up = self.look_up(rule).await.map_err(unresolved)?;
        let (tags, mut wrong) = self.tags_of(rule, &looked_up).await;
        let before = self.images.named().read(rule).await?.unwrap_or_default();
        let mut row = NamedRow::default();
        let told = looked_up.each(self.registry, &tags);
        for ((reference, image), told) in rule.images.iter().zip(&looked_up.images).zip(told) {
            let is_untold = image.unresolved_tag().is_some_and(|tag| !is_settled(tags.get(&tag)));
            match told {
                Ok(image) => {
                    row.images.insert(reference.clone(), image);
                }
                Err(_) if is_untold => {
                    let known = before.images.get(reference).cloned();
                    row.images.extend(known.map(|image| (reference.clone(), image)));
                }
                Err(accepted) => wrong.push(format!("{reference}: it takes {accepted}")),
            }
        }
        self.keep(rule, row, now).await.map_err(unresolved)?;
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(unresolved(wrong.join("; ")))
        }
    }

    /// Looks a rule's images up in this account's ECR.
    async fn look_up(&self, rule: &Rule) -> Result<LookedUp, String> {
        let requested = rule.images.iter();
        let requested = requested.map(|text| RequestedImage::parse(text, self.registry));
        let requested = requested.collect::<Result<Vec<_>, _>>()?;
        let looked_up = look_up(self.ecr, &requested).await;
        looked_up.map_err(|error| error_text(&error))
    }

    /// Has a node tell what tags of other registries are, and says what of that went wrong: nothing where there is no node.
    async fn tags_of(&self, rule: &Rule, looked_up: &LookedUp) -> (ResolvedTags, Vec<String>) {
        let nodes = [NodeSelector::new(self.cluster, rule)];
        let unresolved = looked_up.unresolved_tags();
        match self.tags.resolve(&unresolved, Nodes::Selected(&nodes)).await {
            Ok(tags) => {
                let untold = unresolved.iter().filter(|tag| !is_settled(tags.get(*tag)));
                let wrong = untold.map(|tag| match tags.get(tag) {
                    Some(Err(failure)) => format!("{tag}: {failure}"),
                    _ => format!("{tag}: no node has told"),
                });
                let wrong = wrong.collect();
                (tags, wrong)
            }
            Err(error @ (TagsError::NoNode(_) | TagsError::Observes(_))) => {
                info!(rule = rule.name, "rule {}: {error}", rule.name);
                (ResolvedTags::new(), Vec::new())
            }
            Err(error) => (ResolvedTags::new(), vec![error_text(&error)]),
        }
    }

    /// Keeps what was found. It does not expire: a stack may have no other reconcile than that of its deployment.
    async fn keep(&self, rule: &Rule, row: NamedRow, now: DateTime<Utc>) -> Result<(), String> {
        let mut item: Item = serde_dynamo::to_item(&row).map_err(|error| error.to_string())?;
        item.extend(Key::named_images(&rule.name).item());
        let put = self.store.put(item).send().await;
        put.map_err(|error| error_text(&error))?;
        self.images.named().note(rule, row, SystemTime::from(now));
        Ok(())
    }
}
