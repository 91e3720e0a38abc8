//! The images that rules name themselves: what they are now, as ECR and nodes tell.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use prefetch::{
    ecr::ImagesError,
    error_text::error_text,
    image::TaggedImage,
    named_images::NamedRow,
    node::{Cluster, NodeSelector},
    outcome::is_retryable,
    requested_image::RequestedImage,
    resolve::{LookedUp, look_up},
    rows::{Item, Key},
    rule::Rule,
    rule_images::RuleImages,
    tags::{Nodes, ResolvedTags, TagResolver, TagsError},
};
use tracing::info;

use crate::store::Store;

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
    /// Finds out what the images are that a rule names itself, and keeps that for launches, bakes and boot lists. What cannot be
    /// told this time stays as it was, unless the image is no more.
    ///
    /// Costs nothing where a rule names none, else what [`look_up`] and [`TagResolver::resolve`] take, a Query and a PutItem.
    ///
    /// # Errors
    /// [`ImagesError`] that names each image that is not known and why; none of those is where no node is there to ask.
    pub async fn find(&self, rule: &Rule, now: DateTime<Utc>) -> Result<(), ImagesError> {
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
            let is_untold = image.unresolved_tag().is_some_and(|tag| !is_told(&tags, &tag));
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
                let untold = unresolved.iter().filter(|tag| !is_told(&tags, tag));
                let wrong = untold.map(|tag| match tags.get(tag) {
                    Some(Err(failure)) => format!("{tag}: {failure}"),
                    _ => format!("{tag}: no node has told"),
                });
                let wrong = wrong.collect();
                (tags, wrong)
            }
            Err(error @ (TagsError::NoNode | TagsError::Observes)) => {
                info!(rule = rule.name, "rule {}: {error}", rule.name);
                (ResolvedTags::new(), Vec::new())
            }
            Err(error) => (ResolvedTags::new(), vec![error_text(&error)]),
        }
    }

    async fn keep(&self, rule: &Rule, row: NamedRow, now: DateTime<Utc>) -> Result<(), String> {
        let mut item: Item = serde_dynamo::to_item(&row).map_err(|error| error.to_string())?;
        item.extend(Key::named_images(&rule.name).item());
        item.insert("expires_at".to_owned(), self.store.expires_at(now));
        let put = self.store.put(item).send().await;
        put.map_err(|error| error_text(&error))?;
        self.images.named().note(rule, row, SystemTime::from(now));
        Ok(())
    }
}

/// Returns true where a node has told what a tag is, or that it is nothing which another time may be.
fn is_told(tags: &ResolvedTags, tag: &TaggedImage) -> bool {
    match tags.get(tag) {
        Some(Ok(_)) => true,
        Some(Err(failure)) => !is_retryable(&failure.reason),
        None => false,
    }
}
