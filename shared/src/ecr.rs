//! Which images a rule names now: the newest of each of its repositories, as ECR tells.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use crate::{
    image::{Image, ImageError, ecr_registry, is_referrer_tag, not_runnable},
    rule::Rule,
};
use aws_config::SdkConfig;
use aws_sdk_ecr::{
    Client,
    error::SdkError,
    operation::{describe_images::DescribeImagesError, describe_repositories::DescribeRepositoriesError},
    types::{DescribeImagesFilter, ImageDetail, TagStatus},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use thiserror::Error;
use tracing::warn;

/// How long an answer of ECR is good: a storm of launches asks once.
const MEMO: Duration = Duration::from_secs(30);
/// How many repositories are asked for at once: hundreds of them must be done within the function's 25 seconds.
const AT_ONCE: usize = 16;
/// How many rows one page of ECR has at most (ECR service model).
const PAGE_SIZE: i32 = 1000;

/// Why the newest images cannot be told.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// ECR did not list the repositories.
    #[error("the repositories could not be listed")]
    Repositories(#[source] Box<SdkError<DescribeRepositoriesError>>),
    /// ECR did not list a repository's images.
    #[error("the images of repository {0} could not be listed")]
    Images(String, #[source] Box<SdkError<DescribeImagesError>>),
    /// ECR's answer names no usable image.
    #[error("an image of repository {0} cannot be named")]
    Image(String, #[source] ImageError),
    /// The environment names no Region.
    #[error("no Region is set: AWS_REGION names the one whose registry is asked")]
    NoRegion,
}

/// The newest images of repositories; what ECR answered is remembered for 30 seconds.
pub struct NewestImages {
    ecr: Client,
    region: String,
    repositories: Memo<String>,
    images: Memo<Pushed>,
}

/// A tagged image that a node can run, as ECR keeps it.
#[derive(Clone, Debug)]
struct Pushed {
    registry_id: String,
    digest: String,
    tags: Vec<String>,
    arrived: SystemTime,
}

impl NewestImages {
    /// Asks the ECR of the configuration's Region.
    ///
    /// # Errors
    /// [`ImagesError::NoRegion`] where the configuration has none.
    pub fn new(config: &SdkConfig) -> Result<Self, ImagesError> {
        let region = config.region().ok_or(ImagesError::NoRegion)?.to_string();
        Ok(Self::with_client(Client::new(config), region))
    }

    /// Asks this client, whose Region has that name.
    #[must_use]
    pub fn with_client(ecr: Client, region: String) -> Self {
        Self {
            ecr,
            region,
            repositories: Memo::default(),
            images: Memo::default(),
        }
    }

    /// Asks the same ECR, and remembers nothing yet: who asks right after a push wants what was pushed.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::with_client(self.ecr.clone(), self.region.clone())
    }

    /// Names the rule's newest images: of each repository it takes the `newest` last pushed that have a tag it takes, by
    /// every such tag.
    ///
    /// Asks ECR at most once per repository in 30 seconds, and lists the repositories only where the rule has a real
    /// glob. A repository that does not exist has no images.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR cannot be asked.
    pub async fn of_rule(&self, rule: &Rule, now: SystemTime) -> Result<Vec<Image>, ImagesError> {
        let repositories = self.repositories_of(rule, now).await?;
        let of_repository = |repository: String| async move {
            let pushed = self.pushed_to(&repository, now).await?;
            newest(&pushed, rule, &repository, &self.region)
        };
        let images: Vec<Vec<Image>> = stream::iter(repositories)
            .map(of_repository)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(images.concat())
    }

    async fn repositories_of(&self, rule: &Rule, now: SystemTime) -> Result<Vec<String>, ImagesError> {
        if let Some(literals) = rule.repositories.literals() {
            return Ok(literals.into_iter().map(str::to_owned).collect());
        }
        let all = match self.repositories.get("", now) {
            Some(all) => all,
            None => self.repositories.put("", now, self.list_repositories().await?),
        };
        Ok(all.into_iter().filter(|name| rule.repositories.matches(name)).collect())
    }

    async fn pushed_to(&self, repository: &str, now: SystemTime) -> Result<Vec<Pushed>, ImagesError> {
        match self.images.get(repository, now) {
            Some(pushed) => Ok(pushed),
            None => Ok(self.images.put(repository, now, self.list_images(repository).await?)),
        }
    }

    async fn list_repositories(&self) -> Result<Vec<String>, ImagesError> {
        let mut pages = self
            .ecr
            .describe_repositories()
            .max_results(PAGE_SIZE)
            .into_paginator()
            .items()
            .send();
        let mut names = Vec::new();
        while let Some(repository) = pages.next().await {
            let repository = repository.map_err(|error| ImagesError::Repositories(Box::new(error)))?;
            names.extend(repository.repository_name);
        }
        Ok(names)
    }

    async fn list_images(&self, repository: &str) -> Result<Vec<Pushed>, ImagesError> {
        let tagged = DescribeImagesFilter::builder().tag_status(TagStatus::Tagged).build();
        let mut pages = self
            .ecr
            .describe_images()
            .repository_name(repository)
            .filter(tagged)
            .max_results(PAGE_SIZE)
            .into_paginator()
            .items()
            .send();
        let mut images = Vec::new();
        while let Some(image) = pages.next().await {
            match image {
                Ok(image) => images.extend(runnable(image)),
                Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
                    warn!(repository.name = repository, "repository {repository} does not exist");
                    return Ok(Vec::new());
                }
                Err(error) => return Err(ImagesError::Images(repository.to_owned(), Box::new(error))),
            }
        }
        Ok(images)
    }
}

/// Picks a rule's newest images of a repository, newest first, by each tag that the rule takes.
fn newest(pushed: &[Pushed], rule: &Rule, repository: &str, region: &str) -> Result<Vec<Image>, ImagesError> {
    let mut wanted: Vec<(&Pushed, Vec<&str>)> = pushed
        .iter()
        .map(|image| {
            let tags = image.tags.iter().map(String::as_str);
            (image, tags.filter(|tag| rule.tags.matches(tag)).collect::<Vec<_>>())
        })
        .filter(|(_, tags)| !tags.is_empty())
        .collect();
    wanted.sort_by(|(a, _), (b, _)| (b.arrived, &b.digest).cmp(&(a.arrived, &a.digest)));
    wanted
        .into_iter()
        .take(rule.newest)
        .flat_map(|(image, tags)| tags.into_iter().map(move |tag| (image, tag)))
        .map(|(image, tag)| {
            ecr_registry(&image.registry_id, region)
                .and_then(|registry| Image::new(&registry, repository, Some(tag), &image.digest))
                .map_err(|error| ImagesError::Image(repository.to_owned(), error))
        })
        .collect()
}

fn runnable(image: ImageDetail) -> Option<Pushed> {
    if not_runnable(image.image_manifest_media_type(), image.artifact_media_type()).is_some() {
        return None;
    }
    Some(Pushed {
        arrived: SystemTime::try_from(image.image_pushed_at?).ok()?,
        registry_id: image.registry_id?,
        digest: image.image_digest?,
        tags: image
            .image_tags?
            .into_iter()
            .filter(|tag| !is_referrer_tag(tag))
            .collect(),
    })
}

/// Lists by key, each good for [`MEMO`].
struct Memo<T>(Mutex<HashMap<String, (SystemTime, Vec<T>)>>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memo<T> {
    fn get(&self, key: &str, now: SystemTime) -> Option<Vec<T>> {
        let lists = self.0.lock().expect("no holder of the lock panics");
        let (since, list) = lists.get(key)?;
        now.duration_since(*since)
            .is_ok_and(|age| age < MEMO)
            .then(|| list.clone())
    }

    /// Remembers a list, and gives it back. That there is nothing is not remembered: a node that comes online right after
    /// the first push would get nothing.
    fn put(&self, key: &str, now: SystemTime, list: Vec<T>) -> Vec<T> {
        if !list.is_empty() {
            let mut lists = self.0.lock().expect("no holder of the lock panics");
            lists.insert(key.to_owned(), (now, list.clone()));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_remembered_for_thirty_seconds_and_that_there_is_none_is_not() {
        let memo = Memo::default();
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(memo.put("full", now, vec![1]), [1]);
        assert_eq!(memo.get("full", now + Duration::from_secs(29)), Some(vec![1]));
        assert_eq!(memo.get("full", now + MEMO), None);
        assert!(memo.put("empty", now, Vec::<i32>::new()).is_empty());
        assert_eq!(memo.get("empty", now), None);
    }
}
