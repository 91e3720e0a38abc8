//! Which images a rule names now: the newest of each of its repositories, as ECR tells.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_ecr::{
    Client,
    config::{Builder, retry::RetryConfig},
    error::SdkError,
    operation::{
        batch_get_image::BatchGetImageError, describe_images::DescribeImagesError,
        describe_repositories::DescribeRepositoriesError,
    },
    types::{DescribeImagesFilter, ImageDetail, ImageFailureCode, ImageIdentifier, ImageStatusFilter, TagStatus},
};
use futures_util::{StreamExt, stream};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{
    image::{Image, ImageError, Kind, MANIFEST_MEDIA_TYPES, RegistryEndpoint, ecr_registry, is_index_of_images},
    newest::{Candidate, Pushed, Shortlist},
    report::report,
    rule::Rule,
    settings::Settings,
};

/// How long an answer of ECR is good: a storm of launches asks once.
const MEMO: Duration = Duration::from_secs(30);
/// How long the answers of a scan are good that could not be ended: the next one goes on where it stopped.
const UNFINISHED: Duration = Duration::from_mins(10);
/// How many repositories are asked for at once, each of which holds one page of some megabytes.
const AT_ONCE: usize = 8;
/// How many rows one page of ECR has at most (ECR service model).
const PAGE_SIZE: i32 = 1000;
/// How many images one BatchGetImage is asked for (ECR service model, `imageIds`).
const MAX_IDS: usize = 100;
/// Of how many indexes it is remembered what they lead to, of some 100 bytes each.
const MAX_INDEXES: usize = 20_000;
/// For how long a scan goes on, unless it is told otherwise: what it has answered has to be sent within the function's 25
/// seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often a call is tried that ECR throttles; between them the SDK also slows all others down.
const ATTEMPTS: u32 = 5;

/// Why the newest images cannot be told.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// ECR did not list the repositories.
    #[error("the repositories could not be listed")]
    Repositories(#[source] Box<SdkError<DescribeRepositoriesError>>),
    /// ECR did not list a repository's images.
    #[error("the images of repository {0} could not be listed")]
    Images(String, #[source] Box<SdkError<DescribeImagesError>>),
    /// ECR did not give manifests.
    #[error("manifests of repository {0} could not be read")]
    Manifests(String, #[source] Box<SdkError<BatchGetImageError>>),
    /// ECR gave all manifests but one.
    #[error("the manifest {0} could not be read: {1}")]
    Manifest(String, String),
    /// ECR's answer names no usable image.
    #[error("an image of repository {0} cannot be named")]
    Image(String, #[source] ImageError),
    /// ECR takes longer than there is time.
    #[error("the images of {0} repositories could not be listed in {1} seconds")]
    Slow(usize, u64),
    /// The environment names no Region.
    #[error("no Region is set: AWS_REGION names the one whose registry is asked")]
    NoRegion,
}

/// The newest images of repositories; what ECR answered is remembered for 30 seconds.
pub struct NewestImages {
    ecr: Client,
    region: String,
    endpoint: RegistryEndpoint,
    rules: Arc<[Rule]>,
    patience: Duration,
    /// When that ends, for what is asked at this moment: all rules of one invocation share it.
    deadline: Mutex<Option<(SystemTime, Instant)>>,
    repositories: Mutex<Option<(SystemTime, Vec<String>)>>,
    answers: Mutex<HashMap<String, (SystemTime, Arc<Answer>)>>,
    /// Of indexes whether they lead to an image, which does not change.
    indexes: Arc<Mutex<HashMap<String, bool>>>,
    /// What scans have answered that could not be ended, by the rule's name, and since when.
    unfinished: Arc<Mutex<HashMap<String, (SystemTime, Answers)>>>,
}

/// What a repository's images are to the rules that take it, by their names.
type Answer = BTreeMap<String, Vec<Candidate>>;
/// The answers of repositories, by their names.
type Answers = HashMap<String, Arc<Answer>>;

/// What is known of a rule's newest images.
#[derive(Debug)]
pub struct Newest {
    /// Those of the repositories of which ECR answered.
    pub images: Vec<Image>,
    /// Why it did not answer of the others, where there are some.
    pub missing: Option<ImagesError>,
}

impl NewestImages {
    /// Asks the ECR of the configuration's Region for the images of the settings' rules.
    ///
    /// # Errors
    /// [`ImagesError::NoRegion`] where the configuration has none.
    pub fn new(config: &SdkConfig, settings: &Settings) -> Result<Self, ImagesError> {
        let region = config.region().ok_or(ImagesError::NoRegion)?.to_string();
        let retries = RetryConfig::adaptive().with_max_attempts(ATTEMPTS);
        let config = Builder::from(config).retry_config(retries).build();
        Ok(Self::with_client(Client::from_conf(config), region, settings))
    }

    /// Asks this client, whose Region has that name.
    #[must_use]
    pub fn with_client(ecr: Client, region: String, settings: &Settings) -> Self {
        Self {
            ecr,
            region,
            endpoint: settings.registry_endpoint,
            rules: settings.rules.clone().into(),
            patience: PATIENCE,
            deadline: Mutex::default(),
            repositories: Mutex::default(),
            answers: Mutex::default(),
            indexes: Arc::default(),
            unfinished: Arc::default(),
        }
    }

    /// Asks the same ECR for so long at most, and remembers nothing yet but what a scan answered that could not be ended: who
    /// asks right after a push wants what was pushed.
    #[must_use]
    pub fn anew(&self, patience: Duration) -> Self {
        Self {
            ecr: self.ecr.clone(),
            region: self.region.clone(),
            endpoint: self.endpoint,
            rules: Arc::clone(&self.rules),
            patience,
            deadline: Mutex::default(),
            repositories: Mutex::default(),
            answers: Mutex::default(),
            indexes: Arc::clone(&self.indexes),
            unfinished: Arc::clone(&self.unfinished),
        }
    }

    /// Names the rule's newest images: of each repository it takes those that [`Shortlist::choose`] does, each by at most five
    /// of the tags that it takes.
    ///
    /// Asks ECR once for each 1,000 images of a repository, whatever the number of rules, and again after 30 seconds; once more
    /// for the manifests of indexes; and lists the repositories only where the rule has a real glob. A repository that does
    /// not exist has no images.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR does not answer of each repository: the next call asks for those that are left.
    pub async fn of_rule(&self, rule: &Rule, now: SystemTime) -> Result<Vec<Image>, ImagesError> {
        let Newest { images, missing } = self.known_of_rule(rule, now).await?;
        missing.map_or(Ok(images), Err)
    }

    /// Names the rule's newest images as [`NewestImages::of_rule`] does, as far as ECR answers.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR does not even list the repositories.
    pub async fn known_of_rule(&self, rule: &Rule, now: SystemTime) -> Result<Newest, ImagesError> {
        let repositories = self.repositories_of(rule, now).await?;
        let (since, mut answers) = self.remembered(rule, &repositories, now);
        let mut asked: Vec<&String> = repositories
            .iter()
            .filter(|name| !answers.contains_key(*name))
            .collect();
        // A scan that never gets to its end begins elsewhere each time.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let start = seconds % u64::try_from(asked.len().max(1)).unwrap_or(1);
        asked.rotate_left(usize::try_from(start).unwrap_or_default());
        let mut missing = None;
        let mut left = asked.len();
        let deadline = self.deadline(now);
        let listing = stream::iter(asked).map(async |repository| (repository, self.list_images(repository).await));
        let mut listing = std::pin::pin!(listing.buffer_unordered(AT_ONCE));
        loop {
            match timeout_at(deadline, listing.next()).await {
                Ok(None) => break,
                Ok(Some((repository, Ok(answer)))) => {
                    let answer = Arc::new(answer);
                    locked(&self.answers).insert(repository.clone(), (now, Arc::clone(&answer)));
                    answers.insert(repository.clone(), answer);
                    left -= 1;
                }
                Ok(Some((_, Err(error)))) => {
                    if missing.is_some() {
                        warn!("{}", report(&error));
                    }
                    missing.get_or_insert(error);
                }
                Err(_) => {
                    missing.get_or_insert(ImagesError::Slow(left, self.patience.as_secs()));
                    break;
                }
            }
        }
        let images = self.images(rule, &repositories, &answers)?;
        let mut unfinished = locked(&self.unfinished);
        if missing.is_some() {
            unfinished.insert(rule.name.clone(), (since, answers));
        } else {
            unfinished.remove(&rule.name);
        }
        Ok(Newest { images, missing })
    }

    fn deadline(&self, now: SystemTime) -> Instant {
        let mut deadline = locked(&self.deadline);
        match *deadline {
            Some((moment, deadline)) if moment == now => deadline,
            _ => deadline.insert((now, Instant::now() + self.patience)).1,
        }
    }

    /// Finds the answers that are good still, and since when the oldest of an unfinished scan's has been.
    fn remembered(&self, rule: &Rule, repositories: &[String], now: SystemTime) -> (SystemTime, Answers) {
        let mut unfinished = locked(&self.unfinished);
        let unfinished = unfinished
            .remove(&rule.name)
            .filter(|(since, _)| is_good(*since, UNFINISHED, now));
        let (since, mut answers) = unfinished.unwrap_or_else(|| (now, Answers::new()));
        let remembered = locked(&self.answers);
        for repository in repositories {
            // That there is nothing is not remembered: a node that comes online right after the first push would get nothing.
            let is_known = |answer: &Answer| answer.get(&rule.name).is_some_and(|images| !images.is_empty());
            match remembered.get(repository) {
                Some((at, answer)) if is_good(*at, MEMO, now) && is_known(answer) => {
                    answers.insert(repository.clone(), Arc::clone(answer));
                }
                _ => {}
            }
        }
        (since, answers)
    }

    fn images(&self, rule: &Rule, repositories: &[String], answers: &Answers) -> Result<Vec<Image>, ImagesError> {
        let of_repository = |repository: &'_ String| {
            let answer = answers.get(repository)?;
            Some((repository.clone(), answer.get(&rule.name)?))
        };
        let mut images = Vec::new();
        for (repository, candidates) in repositories.iter().filter_map(of_repository) {
            for Candidate {
                registry_id,
                digest,
                names,
                ..
            } in candidates
            {
                let image = |tag: &String| {
                    let registry = ecr_registry(registry_id, &self.region, self.endpoint)?;
                    Image::new(&registry, &repository, Some(tag), digest)
                };
                let named: Result<Vec<Image>, ImageError> = names.iter().map(image).collect();
                images.extend(named.map_err(|error| ImagesError::Image(repository.clone(), error))?);
            }
        }
        Ok(images)
    }

    async fn repositories_of(&self, rule: &Rule, now: SystemTime) -> Result<Vec<String>, ImagesError> {
        if let Some(literals) = rule.repositories.literals() {
            return Ok(literals.into_iter().map(str::to_owned).collect());
        }
        let known = locked(&self.repositories).clone();
        let all = match known.filter(|(at, _)| is_good(*at, MEMO, now)) {
            Some((_, all)) => all,
            None => self.list_repositories(now).await?,
        };
        Ok(all.into_iter().filter(|name| rule.repositories.matches(name)).collect())
    }

    async fn list_repositories(&self, now: SystemTime) -> Result<Vec<String>, ImagesError> {
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
        if !names.is_empty() {
            *locked(&self.repositories) = Some((now, names.clone()));
        }
        Ok(names)
    }

    /// Reads a repository page by page, and keeps of each what a rule can want.
    async fn list_images(&self, repository: &str) -> Result<Answer, ImagesError> {
        let rules = self.rules.iter().filter(|rule| rule.repositories.matches(repository));
        let mut shortlists: Vec<(&Rule, Shortlist)> = rules.map(|rule| (rule, Shortlist::new(rule))).collect();
        let active_and_tagged = DescribeImagesFilter::builder()
            .tag_status(TagStatus::Tagged)
            .image_status(ImageStatusFilter::Active);
        let mut pages = self
            .ecr
            .describe_images()
            .repository_name(repository)
            .filter(active_and_tagged.build())
            .max_results(PAGE_SIZE)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => {
                    for image in page.image_details.into_iter().flatten().filter_map(pushed) {
                        for (_, shortlist) in &mut shortlists {
                            shortlist.add(&image);
                        }
                    }
                }
                Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
                    warn!(repository.name = repository, "repository {repository} does not exist");
                    return Ok(Answer::new());
                }
                Err(error) => return Err(ImagesError::Images(repository.to_owned(), Box::new(error))),
            }
        }
        let others = self.indexes_of_no_image(repository, &shortlists).await?;
        let chosen = shortlists.iter().map(|(rule, shortlist)| {
            let chosen = shortlist.choose(|candidate| !others.contains(&candidate.digest));
            (rule.name.clone(), chosen.into_iter().cloned().collect())
        });
        Ok(chosen.collect())
    }

    /// Finds the indexes that lead to no image, of all those that would be chosen otherwise.
    async fn indexes_of_no_image(
        &self,
        repository: &str,
        shortlists: &[(&Rule, Shortlist<'_>)],
    ) -> Result<HashSet<String>, ImagesError> {
        let (mut images, mut others) = (HashSet::new(), HashSet::new());
        loop {
            let chosen = shortlists
                .iter()
                .flat_map(|(_, shortlist)| shortlist.choose(|candidate| !others.contains(&candidate.digest)));
            let unknown = chosen.filter(|candidate| candidate.is_index && !images.contains(&candidate.digest));
            let unknown: HashSet<String> = unknown.map(|candidate| candidate.digest.clone()).collect();
            if unknown.is_empty() {
                return Ok(others);
            }
            let mut known = self.known_indexes(&unknown);
            let asked: Vec<String> = unknown
                .iter()
                .filter(|digest| !known.contains_key(*digest))
                .cloned()
                .collect();
            for digests in asked.chunks(MAX_IDS) {
                known.extend(indexes_of_images(&self.ecr, repository, digests).await?);
            }
            self.remember_indexes(&known);
            for digest in unknown {
                // One that is gone by now is none either.
                let list = if known.get(&digest) == Some(&true) {
                    &mut images
                } else {
                    &mut others
                };
                list.insert(digest);
            }
        }
    }

    fn known_indexes(&self, digests: &HashSet<String>) -> HashMap<String, bool> {
        let indexes = locked(&self.indexes);
        let known = digests
            .iter()
            .filter_map(|digest| Some((digest.clone(), *indexes.get(digest)?)));
        known.collect()
    }

    fn remember_indexes(&self, known: &HashMap<String, bool>) {
        let mut indexes = locked(&self.indexes);
        if indexes.len() > MAX_INDEXES {
            indexes.clear();
        }
        indexes.extend(known.iter().map(|(digest, is)| (digest.clone(), *is)));
    }
}

/// Asks ECR of an image by its digest; none where it is not there. Of one in the archive ECR may tell that it is.
///
/// # Errors
/// [`ImagesError::Images`] where ECR cannot be asked.
pub async fn image_detail(client: &Client, repository: &str, digest: &str) -> Result<Option<ImageDetail>, ImagesError> {
    let id = ImageIdentifier::builder().image_digest(digest).build();
    match client
        .describe_images()
        .repository_name(repository)
        .image_ids(id)
        .send()
        .await
    {
        Ok(answer) => Ok(answer.image_details.into_iter().flatten().next()),
        Err(SdkError::ServiceError(refused))
            if refused.err().is_image_not_found_exception() || refused.err().is_repository_not_found_exception() =>
        {
            Ok(None)
        }
        Err(error) => Err(ImagesError::Images(repository.to_owned(), Box::new(error))),
    }
}

/// Asks ECR which of at most 100 indexes lead to an image; those that are not there are left out.
///
/// # Errors
/// [`ImagesError`] where ECR does not give one of them.
pub async fn indexes_of_images(
    client: &Client,
    repository: &str,
    digests: &[String],
) -> Result<HashMap<String, bool>, ImagesError> {
    let id = |digest: &String| ImageIdentifier::builder().image_digest(digest).build();
    let answer = client
        .batch_get_image()
        .repository_name(repository)
        .set_image_ids(Some(digests.iter().map(id).collect()))
        .set_accepted_media_types(Some(MANIFEST_MEDIA_TYPES.map(str::to_owned).to_vec()))
        .send()
        .await;
    let answer = match answer {
        Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
            return Ok(HashMap::new());
        }
        answer => answer.map_err(|error| ImagesError::Manifests(repository.to_owned(), Box::new(error)))?,
    };
    let is_gone = |code: Option<&ImageFailureCode>| code == Some(&ImageFailureCode::ImageNotFound);
    if let Some(failure) = answer
        .failures()
        .iter()
        .find(|failure| !is_gone(failure.failure_code()))
    {
        let digest = failure
            .image_id()
            .and_then(|id| id.image_digest())
            .unwrap_or(repository);
        let reason = failure.failure_reason().unwrap_or("ECR does not say why");
        return Err(ImagesError::Manifest(digest.to_owned(), reason.to_owned()));
    }
    let known = answer.images().iter().filter_map(|image| {
        let digest = image.image_id()?.image_digest()?.to_owned();
        Some((digest, is_index_of_images(image.image_manifest()?)))
    });
    Ok(known.collect())
}

/// Takes what a listing tells of an image; none where it is no image, or one that was archived meanwhile.
fn pushed(image: ImageDetail) -> Option<Pushed> {
    let kind = Kind::of(image.image_manifest_media_type(), image.artifact_media_type());
    if matches!(kind, Kind::Other(_)) || image.subject_manifest_digest().is_some() {
        return None;
    }
    Some(Pushed {
        arrived: SystemTime::try_from(image.image_pushed_at?).ok()?,
        registry_id: image.registry_id?,
        digest: image.image_digest?,
        tags: image.image_tags?,
        is_index: kind == Kind::Index,
    })
}

fn is_good(since: SystemTime, period: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|age| age < period)
}

/// Locks what no holder leaves half-done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "mocks"))]
mod tests;
