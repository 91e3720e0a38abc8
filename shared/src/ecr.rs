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
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        batch_get_image::BatchGetImageError, describe_images::DescribeImagesError,
        describe_repositories::DescribeRepositoriesError,
    },
    types::{
        DescribeImagesFilter, ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, ImageStatusFilter,
        TagStatus,
    },
};
use futures_util::{StreamExt, stream};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{
    image::{Image, ImageError, Kind, MANIFEST_MEDIA_TYPES, RegistryEndpoint, ecr_registry, is_image},
    newest::{Candidate, Pushed, Seen, Shortlist},
    report::report,
    rule::Rule,
    settings::Settings,
};

/// How long an answer of ECR is good: a storm of launches asks once.
const MEMO: Duration = Duration::from_secs(30);
/// How long an answer is good that a scan got which could not be ended: the next one goes on where it stopped.
const UNFINISHED: Duration = Duration::from_mins(10);
/// How old such an answer may be, where there is time to ask again once the others are known.
const FRESH: Duration = Duration::from_mins(2);
/// How many repositories are asked for at once, each of which holds one page of some megabytes.
const AT_ONCE: usize = 8;
/// How many rows one page of ECR has at most (ECR service model).
const PAGE_SIZE: i32 = 1000;
/// How many images one BatchGetImage is asked for (ECR service model, `imageIds`).
const MAX_IDS: usize = 100;
/// Of how many manifests it is remembered whether they are images', of some 100 bytes each.
const MAX_MANIFESTS: usize = 20_000;
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
    /// How much of that scans have taken that were begun at this moment: all rules of one invocation share it.
    spent: Mutex<Option<(SystemTime, Duration)>>,
    repositories: Mutex<Option<(SystemTime, Vec<String>)>>,
    answers: Mutex<Answers>,
    /// Of manifests whether they are an image's, which does not change.
    manifests: Arc<Mutex<HashMap<String, bool>>>,
    /// The repositories of which it was said that manifests cannot be read.
    unread: Arc<Mutex<HashSet<String>>>,
    /// The listings that were cut off, by the repository's name.
    begun: Arc<Mutex<HashMap<String, Begun>>>,
    /// What scans have answered that could not be ended, by the rule's name.
    unfinished: Arc<Mutex<HashMap<String, Answers>>>,
}

/// What a repository's images are to the rules that take it, by their names.
type Answer = BTreeMap<String, Vec<Candidate>>;
/// The answers of repositories, by their names.
type Answers = HashMap<String, Known>;

/// An answer, and its age.
#[derive(Clone)]
struct Known {
    /// When it was whole.
    at: SystemTime,
    /// When its first page was read, which is long before where its listing was cut off.
    since: SystemTime,
    answer: Arc<Answer>,
}

/// A listing of a repository's images that was cut off.
#[derive(Clone)]
struct Begun {
    since: SystemTime,
    /// The page that is next.
    token: String,
    /// What each of the repository's rules can want of the pages before.
    seen: Vec<Seen>,
}

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
            spent: Mutex::default(),
            repositories: Mutex::default(),
            answers: Mutex::default(),
            manifests: Arc::default(),
            unread: Arc::default(),
            begun: Arc::default(),
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
            spent: Mutex::default(),
            repositories: Mutex::default(),
            answers: Mutex::default(),
            manifests: Arc::clone(&self.manifests),
            unread: Arc::clone(&self.unread),
            begun: Arc::clone(&self.begun),
            unfinished: Arc::clone(&self.unfinished),
        }
    }

    /// Names the rule's newest images: of each repository it takes those that [`Shortlist::choose`] does, each by at most five
    /// of the tags that it takes.
    ///
    /// Asks ECR once for each 1,000 images of a repository, whatever the number of rules, and again after 30 seconds; once more
    /// for the manifests of indexes and of what may be a build cache's; and lists the repositories only where the rule has a
    /// real glob. A repository that does not exist has no images.
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
        self.known_of_repositories(rule, &repositories, now).await
    }

    /// Names the rule's newest images of these repositories, which it takes.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR's answer names no usable image.
    pub async fn known_of_repositories(
        &self,
        rule: &Rule,
        repositories: &[String],
        now: SystemTime,
    ) -> Result<Newest, ImagesError> {
        let mut answers = self.remembered(rule, repositories, now);
        let unknown = repositories.iter().filter(|name| !answers.contains_key(*name));
        let unknown: Vec<&String> = unknown.collect();
        let missing = self.scan(unknown, &mut answers, now).await;
        let is_stale = |name: &&String| {
            answers
                .get(*name)
                .is_some_and(|known| !is_good(known.since, FRESH, now))
        };
        let stale: Vec<&String> = repositories.iter().filter(is_stale).collect();
        if missing.is_none()
            && let Some(error) = self.scan(stale, &mut answers, now).await
        {
            warn!(
                rule = rule.name,
                "answers of some minutes ago are used: {}",
                report(&error)
            );
        }
        let images = self.images(rule, repositories, &answers)?;
        if !answers.values().any(|known| names_an_image(&known.answer)) {
            *locked(&self.repositories) = None; // as below: the first push may make the first repository
        }
        let mut unfinished = locked(&self.unfinished);
        if missing.is_some() {
            answers.retain(|_, known| names_an_image(&known.answer));
            unfinished.insert(rule.name.clone(), answers);
        } else {
            unfinished.remove(&rule.name);
        }
        Ok(Newest { images, missing })
    }

    /// Asks for the images of repositories as long as there is time; tells why some are missing.
    async fn scan(&self, mut asked: Vec<&String>, answers: &mut Answers, now: SystemTime) -> Option<ImagesError> {
        // A scan that never gets to its end begins elsewhere each time.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let start = seconds % u64::try_from(asked.len().max(1)).unwrap_or(1);
        asked.rotate_left(usize::try_from(start).unwrap_or_default());
        let mut missing = None;
        let mut left = asked.len();
        let begin = Instant::now();
        let deadline = begin + self.patience.saturating_sub(self.spent(now));
        let listing = stream::iter(asked).map(async |repository| (repository, self.list_images(repository, now).await));
        let mut listing = std::pin::pin!(listing.buffer_unordered(AT_ONCE));
        loop {
            match timeout_at(deadline, listing.next()).await {
                Ok(None) => break,
                Ok(Some((repository, Ok((since, answer))))) => {
                    let answer = Known {
                        at: now,
                        since,
                        answer: Arc::new(answer),
                    };
                    locked(&self.answers).insert(repository.clone(), answer.clone());
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
        let spent = self.spent(now) + begin.elapsed();
        *locked(&self.spent) = Some((now, spent));
        missing
    }

    fn spent(&self, now: SystemTime) -> Duration {
        let spent = *locked(&self.spent);
        spent
            .filter(|(at, _)| *at == now)
            .map_or(Duration::ZERO, |(_, spent)| spent)
    }

    /// Finds the answers that are good still, those of an unfinished scan among them.
    fn remembered(&self, rule: &Rule, repositories: &[String], now: SystemTime) -> Answers {
        let unfinished = locked(&self.unfinished).remove(&rule.name);
        let mut answers = unfinished.unwrap_or_default();
        answers.retain(|_, known| is_good(known.at, UNFINISHED, now));
        let remembered = locked(&self.answers);
        for repository in repositories {
            match remembered.get(repository) {
                // That there is nothing is not remembered: a node that comes online right after the first push would get nothing.
                Some(known) if known.at == now || is_good(known.at, MEMO, now) && names_an_image(&known.answer) => {
                    answers.insert(repository.clone(), known.clone());
                }
                _ => {}
            }
        }
        answers
    }

    fn images(&self, rule: &Rule, repositories: &[String], answers: &Answers) -> Result<Vec<Image>, ImagesError> {
        let of_repository = |repository: &'_ String| {
            let known = answers.get(repository)?;
            Some((repository.clone(), known.answer.get(&rule.name)?))
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

    /// Reads a repository page by page, and keeps of each what a rule can want; tells since when. What was cut off goes on where
    /// it stopped.
    async fn list_images(&self, repository: &str, now: SystemTime) -> Result<(SystemTime, Answer), ImagesError> {
        let rules: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.repositories.matches(repository))
            .collect();
        let begun = locked(&self.begun).get(repository).cloned();
        let begun = begun.filter(|begun| is_good(begun.since, UNFINISHED, now));
        let (since, mut token, seen) = match begun {
            Some(begun) => (begun.since, Some(begun.token), begun.seen),
            None => (now, None, vec![Seen::default(); rules.len()]),
        };
        let shortlists = rules.into_iter().zip(seen);
        let mut shortlists: Vec<(&Rule, Shortlist)> = shortlists
            .map(|(rule, seen)| (rule, Shortlist::new(rule, repository, seen)))
            .collect();
        loop {
            let active_and_tagged = DescribeImagesFilter::builder()
                .tag_status(TagStatus::Tagged)
                .image_status(ImageStatusFilter::Active);
            let page = self
                .ecr
                .describe_images()
                .repository_name(repository)
                .filter(active_and_tagged.build())
                .max_results(PAGE_SIZE)
                .set_next_token(token)
                .send()
                .await;
            let page = match page {
                Ok(page) => page,
                Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
                    locked(&self.begun).remove(repository);
                    warn!(repository.name = repository, "repository {repository} does not exist");
                    return Ok((now, Answer::new()));
                }
                Err(error) => {
                    let is_token_refused = error
                        .as_service_error()
                        .is_some_and(DescribeImagesError::is_invalid_parameter_exception);
                    if is_token_refused {
                        locked(&self.begun).remove(repository);
                    }
                    return Err(ImagesError::Images(repository.to_owned(), Box::new(error)));
                }
            };
            for image in page.image_details.into_iter().flatten().filter_map(pushed) {
                for (_, shortlist) in &mut shortlists {
                    shortlist.add(&image);
                }
            }
            token = page.next_token.filter(|token| !token.is_empty());
            let Some(token) = token.clone() else {
                break;
            };
            let seen = shortlists
                .iter()
                .map(|(_, shortlist)| shortlist.seen().clone())
                .collect();
            locked(&self.begun).insert(repository.to_owned(), Begun { since, token, seen });
        }
        let others = self.manifests_of_no_image(repository, &shortlists).await?;
        locked(&self.begun).remove(repository);
        let chosen = shortlists.iter().map(|(rule, shortlist)| {
            let chosen = shortlist.choose(|candidate| is_none_of(candidate, &others));
            (rule.name.clone(), chosen.into_iter().cloned().collect())
        });
        Ok((since, chosen.collect()))
    }

    /// Finds what is no image by its manifest, of all those that would be chosen otherwise.
    async fn manifests_of_no_image(
        &self,
        repository: &str,
        shortlists: &[(&Rule, Shortlist<'_>)],
    ) -> Result<HashSet<String>, ImagesError> {
        let (mut images, mut others) = (HashSet::new(), HashSet::new());
        loop {
            let chosen = shortlists
                .iter()
                .flat_map(|(_, shortlist)| shortlist.choose(|candidate| is_none_of(candidate, &others)));
            let unknown = chosen.filter(|candidate| candidate.needs_manifest() && !images.contains(&candidate.digest));
            let unknown: HashSet<String> = unknown.map(|candidate| candidate.digest.clone()).collect();
            if unknown.is_empty() {
                return Ok(others);
            }
            let mut known = self.known_manifests(&unknown);
            let asked: Vec<String> = unknown
                .iter()
                .filter(|digest| !known.contains_key(*digest))
                .cloned()
                .collect();
            for digests in asked.chunks(MAX_IDS) {
                let answer = manifests(&self.ecr, repository, digests).await?;
                self.remember_manifests(&answer);
                self.warn_of_unread(repository, &answer);
                known.extend(answer.into_iter().map(|(digest, told)| (digest, told.may_run())));
            }
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

    fn known_manifests(&self, digests: &HashSet<String>) -> HashMap<String, bool> {
        let manifests = locked(&self.manifests);
        let known = digests
            .iter()
            .filter_map(|digest| Some((digest.clone(), *manifests.get(digest)?)));
        known.collect()
    }

    fn remember_manifests(&self, told: &HashMap<String, Told>) {
        let mut manifests = locked(&self.manifests);
        if manifests.len() > MAX_MANIFESTS {
            manifests.clear();
        }
        let read = told.iter().filter(|(_, told)| !matches!(told, Told::Unread(_)));
        manifests.extend(read.map(|(digest, told)| (digest.clone(), told.may_run())));
    }

    fn warn_of_unread(&self, repository: &str, told: &HashMap<String, Told>) {
        let unread = told.values().find_map(|told| match told {
            Told::Unread(why) => Some(why),
            _ => None,
        });
        if let Some(why) = unread
            && locked(&self.unread).insert(repository.to_owned())
        {
            warn_unread(repository, why);
        }
    }
}

fn is_none_of(candidate: &Candidate, others: &HashSet<String>) -> bool {
    !(candidate.needs_manifest() && others.contains(&candidate.digest))
}

/// What a manifest tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is an image's.
    Image,
    /// It was read, and leads to no image.
    Other,
    /// ECR does not give it, for this reason: a node may fare better.
    Unread(String),
}

impl Told {
    /// Returns true unless it was read and leads to no image.
    #[must_use]
    pub fn may_run(&self) -> bool {
        *self != Self::Other
    }
}

/// Says that a manifest cannot be read, so that it is taken for an image's.
pub fn warn_unread(repository: &str, why: &str) {
    warn!(
        repository.name = repository,
        "manifests of repository {repository} cannot be read, and are taken for images': {why}"
    );
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

/// Asks ECR for at most 100 manifests, of indexes or of images that may be a build cache's; those that are not there are left
/// out.
///
/// # Errors
/// [`ImagesError::Manifests`] where ECR does not answer for now. What it refuses to give is [`Told::Unread`].
pub async fn manifests(
    client: &Client,
    repository: &str,
    digests: &[String],
) -> Result<HashMap<String, Told>, ImagesError> {
    let id = |digest: &String| ImageIdentifier::builder().image_digest(digest).build();
    let answer = client
        .batch_get_image()
        .repository_name(repository)
        .set_image_ids(Some(digests.iter().map(id).collect()))
        .set_accepted_media_types(Some(MANIFEST_MEDIA_TYPES.map(str::to_owned).to_vec()))
        .send()
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
            return Ok(HashMap::new());
        }
        Err(SdkError::ServiceError(refused)) if is_refusal(refused.err()) => {
            let why = Told::Unread(report(refused.err()));
            return Ok(digests.iter().map(|digest| (digest.clone(), why.clone())).collect());
        }
        Err(error) => return Err(ImagesError::Manifests(repository.to_owned(), Box::new(error))),
    };
    let read = answer.images().iter().filter_map(|image| {
        let digest = image.image_id()?.image_digest()?.to_owned();
        let is_image = is_image(image.image_manifest()?);
        Some((digest, if is_image { Told::Image } else { Told::Other }))
    });
    let is_there = |failure: &&ImageFailure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound);
    let unread = answer.failures().iter().filter(is_there).filter_map(|failure| {
        let code = failure.failure_code().map_or("no code", ImageFailureCode::as_str);
        let why = format!("{code}: {}", failure.failure_reason().unwrap_or("ECR does not say why"));
        Some((failure.image_id()?.image_digest()?.to_owned(), Told::Unread(why)))
    });
    Ok(read.chain(unread).collect())
}

/// Returns true where another try would be answered the same: a policy does not let the function read, or the registry from
/// which ECR would fetch does not give it.
fn is_refusal(error: &BatchGetImageError) -> bool {
    error.is_unable_to_get_upstream_image_exception()
        || error.code().is_some_and(|code| code.starts_with("AccessDenied"))
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

fn names_an_image(answer: &Answer) -> bool {
    answer.values().any(|images| !images.is_empty())
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
