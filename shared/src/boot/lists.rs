//! Describes how lists are kept: by each push for the repository that it is of, and as a whole by the reconcile.

use std::{
    collections::BTreeMap,
    error::Error,
    time::{Duration, SystemTime},
};

use aws_sdk_ssm::Client;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tracing::{error, info, warn};

use super::{
    list::{BootList, merged},
    store::{BootError, Store, Stored},
};
use crate::{
    ecr::{ImagesError, Newest},
    error_text::error_text,
    image::Image,
    rule::Rule,
    rule_images::{RuleImages, RuleUse},
    settings::{Mode, Settings},
};

/// Sets how long ECR is asked for the images of a repository that was pushed to, or of all where pushes meet.
const LISTING: Duration = Duration::from_secs(12);
/// Limits for how many rules the lists are kept at once: Parameter Store throttles all calls of an account together.
const AT_ONCE: usize = 3;

/// Keeps the lists of a stack.
#[derive(Debug)]
pub struct BootLists {
    store: Store,
    is_observing: bool,
}

/// Holds what became of the list of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The rule's name.
    pub rule: String,
    /// Says what was decided.
    #[serde(flatten)]
    pub decision: Decision,
}

/// Holds what was decided of a list, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// It was written.
    #[serde(rename_all = "camelCase")]
    Written {
        /// Tells how many images it names.
        images: usize,
        /// Tells how many did not fit.
        left_out: usize,
    },
    /// It is there as it should be.
    #[serde(rename_all = "camelCase")]
    Unchanged {
        /// Tells how many images it names.
        images: usize,
        /// Tells how many did not fit.
        left_out: usize,
    },
    /// The stack observes: nothing is read or written.
    Observed,
    /// A push has written it since ECR was asked, and knows more.
    Overtaken,
    /// ECR does not name all images, or the table not what nodes run, and the list stays as it was.
    Incomplete {
        /// Says why.
        cause: String,
    },
    /// The rule names no image that exists.
    NoImages,
    /// It was removed: the rule is no more, or names no image.
    Removed,
    /// AWS did not do as it was asked: the next reconcile mends it.
    Failed {
        /// Says why, without the names of anything.
        cause: String,
    },
}

impl Decision {
    fn written(list: &BootList) -> Self {
        let BootList { images, left_out, .. } = *list;
        Self::Written { images, left_out }
    }

    fn unchanged(list: &BootList) -> Self {
        let BootList { images, left_out, .. } = *list;
        Self::Unchanged { images, left_out }
    }
}

impl BootLists {
    /// Keeps lists below this path; a stack that observes reads and writes none.
    #[must_use]
    pub fn new(client: Client, path: String, mode: Mode) -> Self {
        Self {
            store: Store::new(client, path),
            is_observing: mode == Mode::Observe,
        }
    }

    /// Brings the newest images of an image's repository into the lists of rules, after a push to it.
    ///
    /// ECR is asked for that repository alone. A rule costs one GetParameters and, where its list changes, a PutParameter for
    /// each of its parameters; one whose new nodes get what their neighbours run also a Query, and one that names images
    /// itself another. Where another push has written in between, the version tells, and the list is written once more from
    /// all that ECR has. What fails is told, and the next reconcile mends it.
    pub async fn pushed(
        &self,
        settings: &Settings,
        images: &RuleImages,
        (pushed, rules): (&Image, &[&Rule]),
        now: SystemTime,
    ) -> Vec<Kept> {
        let images = images.anew(LISTING);
        let keeping = rules.iter().map(async |rule| {
            let decision = if self.is_observing {
                Ok(Decision::Observed)
            } else {
                self.push(settings, &images, rule, pushed, now).await
            };
            kept(&rule.name, decision)
        });
        stream::iter(keeping).buffered(AT_ONCE).collect().await
    }

    async fn push(
        &self,
        settings: &Settings,
        images: &RuleImages,
        rule: &Rule,
        pushed: &Image,
        now: SystemTime,
    ) -> Result<Decision, BootError> {
        let used = match images.known_use(rule, now).await {
            Ok(used) => used,
            Err(cause) => return Ok(incomplete(&cause)),
        };
        let newest = images.newest_of_repository(rule, pushed, now).await?.whole()?;
        let before = self.store.read(&rule.name).await?;
        let staying = staying(images, rule, &used, now).await?;
        let list = merged(rule, &before.images(), &staying, (pushed, newest));
        let list = BootList::new(settings, rule, &list);
        if before.is(&list) {
            return Ok(Decision::unchanged(&list));
        }
        if list.images == 0 {
            return Ok(Decision::NoImages);
        }
        let version = self.store.write(&rule.name, &before, &list).await?;
        if version == before.version + 1 {
            return Ok(Decision::written(&list));
        }
        let all = images.of_new_node(rule, &used, now).await.whole()?;
        let list = BootList::new(settings, rule, &all);
        let written = self.store.read(&rule.name).await?;
        if self.store.write(&rule.name, &written, &list).await? != version + 1 {
            warn!(
                rule = rule.name,
                "boot list of rule {}: pushes meet, and the next reconcile brings all of them", rule.name
            );
        }
        Ok(Decision::written(&list))
    }

    /// Reads all lists, before ECR is asked what they should be; none in a stack that observes.
    ///
    /// # Errors
    /// [`BootError::ReadAll`] where SSM cannot be asked.
    pub async fn read(&self) -> Result<BTreeMap<String, Stored>, BootError> {
        if self.is_observing {
            return Ok(BTreeMap::new());
        }
        self.store.read_all().await
    }

    /// Makes the lists what they should be, and removes those of rules that are no more; `stored` was read before ECR was
    /// asked, so that what a push writes meanwhile is not undone.
    ///
    /// A list that changes costs one GetParameters and a PutParameter for each of its parameters, one that goes a
    /// DeleteParameter for each; a rule that goes by what its nodes run a Query.
    pub async fn reconcile(
        &self,
        settings: &Settings,
        images: &RuleImages,
        stored: BTreeMap<String, Stored>,
        now: SystemTime,
    ) -> Vec<Kept> {
        let mut all = Vec::with_capacity(settings.rules.len());
        let mut others = stored;
        for rule in &settings.rules {
            let before = others.remove(&rule.name).unwrap_or_default();
            let decision = if self.is_observing {
                Ok(Decision::Observed)
            } else {
                self.renew(settings, images, rule, before, now).await
            };
            all.push(kept(&rule.name, decision));
        }
        for (rule, stored) in &others {
            let removed = self.store.remove(rule, stored).await;
            all.push(kept(rule, removed.map(|()| Decision::Removed)));
        }
        all
    }

    async fn renew(
        &self,
        settings: &Settings,
        images: &RuleImages,
        rule: &Rule,
        before: Stored,
        now: SystemTime,
    ) -> Result<Decision, BootError> {
        let used = match images.known_use(rule, now).await {
            Ok(used) => used,
            Err(cause) => return Ok(incomplete(&cause)),
        };
        let Newest { images, missing } = images.of_new_node(rule, &used, now).await;
        if let Some(cause) = missing.filter(|_| before.is_there() || images.is_empty()) {
            return Ok(incomplete(&cause));
        }
        let list = BootList::new(settings, rule, &images);
        if list.images > 0 && before.is(&list) {
            return Ok(Decision::unchanged(&list));
        }
        if list.images == 0 && !before.is_there() {
            return Ok(Decision::NoImages);
        }
        if self.store.read(&rule.name).await?.version != before.version {
            return Ok(Decision::Overtaken);
        }
        if list.images == 0 {
            self.store.remove(&rule.name, &before).await?;
            return Ok(Decision::Removed);
        }
        self.store.write(&rule.name, &before, &list).await?;
        Ok(Decision::written(&list))
    }
}

/// Names what stays in a rule's list whatever is pushed: what its nodes run, and what it names itself.
async fn staying(images: &RuleImages, rule: &Rule, used: &RuleUse, now: SystemTime) -> Result<Vec<Image>, ImagesError> {
    let neighbours = images.neighbours(rule, used, now).into_iter();
    let mut staying: Vec<Image> = neighbours.map(|row| row.image.clone()).collect();
    staying.extend(images.named().of_rule(rule, now).await?);
    Ok(staying)
}

fn incomplete(cause: &dyn Error) -> Decision {
    let cause = error_text(cause);
    Decision::Incomplete { cause }
}

/// Says what became of a list, once.
fn kept(rule: &str, decision: Result<Decision, BootError>) -> Kept {
    let decision = decision.unwrap_or_else(|cause| {
        error!(
            rule,
            reason = "aws-error",
            "boot list of rule {rule}: {}",
            error_text(&cause)
        );
        let cause = cause.to_string();
        Decision::Failed { cause }
    });
    match &decision {
        Decision::Written { images, left_out } | Decision::Unchanged { images, left_out } if *left_out > 0 => warn!(
            rule,
            images, left_out, "boot list of rule {rule}: {images} images, and {left_out} do not fit"
        ),
        Decision::Written { images, .. } => info!(rule, images, "boot list of rule {rule}: {images} images"),
        Decision::Incomplete { cause } => warn!(rule, "boot list of rule {rule} stays as it was: {cause}"),
        Decision::Removed => info!(rule, "boot list of rule {rule}: removed"),
        _ => {}
    }
    Kept {
        rule: rule.to_owned(),
        decision,
    }
}
