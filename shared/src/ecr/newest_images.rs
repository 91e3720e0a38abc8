//! The newest images of repositories, as ECR lists them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_ecr::{
    Client,
    config::{Builder, retry::RetryConfig},
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    error::ImagesError,
    listing::{Answer, Listings, UNFINISHED, is_good},
    registries::Registry,
};
use crate::{
    error_text::error_text,
    image::{Image, ImageError, RegistryEndpoint, ecr_registry},
    locked::locked,
    newest::Candidate,
    rule::Rule,
    settings::Settings,
};

/// Sets how long an answer of ECR is good: a storm of launches asks once.
const MEMO: Duration = Duration::from_secs(30);
/// Sets how old such an answer may be, where there is time to ask again once the others are known.
const FRESH: Duration = Duration::from_mins(2);
/// Limits how many repositories are asked for at once, each of which holds one page of some megabytes: of all registries
/// together, for a function of 128 MB has room for no more.
const AT_ONCE: usize = 8;
/// Sets for how long a scan goes on, unless it is told otherwise: what it has answered has to be sent within the function's
/// 25 seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// Limits how often a call is tried that ECR throttles; between them the SDK also slows all others down.
const ATTEMPTS: u32 = 5;

/// The newest images of repositories; what ECR answered is remembered for 30 seconds.
pub struct NewestImages {
    listings: Listings,
    turns: Arc<Semaphore>,
    region: String,
    endpoint: RegistryEndpoint,
    patience: Duration,
    /// Tells how much of that scans have taken that were begun at this moment: all rules of one invocation share it.
    spent: Mutex<Option<(SystemTime, Duration)>>,
    repositories: Mutex<Option<(SystemTime, Vec<String>)>>,
    answers: Mutex<Answers>,
    /// Says what scans have answered that could not be ended, by the rule's name.
    unfinished: Arc<Mutex<HashMap<String, Answers>>>,
}

/// The answers of repositories, by their names.
type Answers = HashMap<String, Known>;

/// An answer, and its age.
#[derive(Clone)]
struct Known {
    /// Tells when it was whole.
    at: SystemTime,
    /// Tells when its first page was read, which is long before where its listing was cut off.
    since: SystemTime,
    answer: Arc<Answer>,
}

impl Known {
    fn new(at: SystemTime, since: SystemTime, answer: Answer) -> Self {
        let answer = Arc::new(answer);
        Self { at, since, answer }
    }
}

/// Holds what is known of a rule's images.
#[derive(Debug, Default)]
pub struct Newest {
    /// Those of the repositories of which ECR answered.
    pub images: Vec<Image>,
    /// Tells why it did not answer of the others, where there are some.
    pub missing: Option<ImagesError>,
}

impl Newest {
    /// Holds nothing, for this reason.
    #[must_use]
    pub fn unknown(cause: ImagesError) -> Self {
        Self {
            images: Vec::new(),
            missing: Some(cause),
        }
    }

    /// Puts these images before, each once.
    #[must_use]
    pub fn after(self, mut images: Vec<Image>) -> Self {
        let before = images.len();
        for image in self.images {
            if !images[..before].contains(&image) {
                images.push(image);
            }
        }
        Self { images, ..self }
    }

    /// Gives the images where ECR named all.
    ///
    /// # Errors
    /// [`ImagesError`] where it did not.
    pub fn whole(self) -> Result<Vec<Image>, ImagesError> {
        self.missing.map_or(Ok(self.images), Err)
    }
}

impl NewestImages {
    /// Sets up how registries are asked for the newest images: what ECR throttles is tried again, more slowly.
    #[must_use]
    pub fn config(config: &SdkConfig) -> Builder {
        Builder::from(config).retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS))
    }

    /// Asks this client for the images of its own account, in the Region that has that name.
    #[must_use]
    pub fn with_client(ecr: Client, region: String, settings: &Settings) -> Self {
        Self::of(Registry::own(ecr), region, settings)
    }

    /// Asks this registry, whose Region has that name, for the images of the settings' rules.
    #[must_use]
    pub fn of(registry: Registry, region: String, settings: &Settings) -> Self {
        Self {
            listings: Listings::new(registry, settings.rules.clone().into()),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            region,
            endpoint: settings.registry_endpoint,
            patience: PATIENCE,
            spent: Mutex::default(),
            repositories: Mutex::default(),
            answers: Mutex::default(),
            unfinished: Arc::default(),
        }
    }

    /// Takes turns with another registry.
    #[must_use]
    pub fn beside(self, other: &Self) -> Self {
        let turns = Arc::clone(&other.turns);
        Self { turns, ..self }
    }

    /// Asks the same ECR for so long at most, and remembers nothing yet but what a scan answered that could not be ended: who
    /// asks right after a push wants what was pushed.
    #[must_use]
    pub fn anew(&self, patience: Duration) -> Self {
        Self {
            listings: self.listings.clone(),
            turns: Arc::clone(&self.turns),
            region: self.region.clone(),
            endpoint: self.endpoint,
            patience,
            spent: Mutex::default(),
            repositories: Mutex::default(),
            answers: Mutex::default(),
            unfinished: Arc::clone(&self.unfinished),
        }
    }

    /// Names the rule's newest images, as far as ECR answers: of each repository it takes those that
    /// [`crate::newest::Shortlist::choose`] does, each by at most five of the tags that it takes.
    ///
    /// Asks ECR once for each 1,000 images of a repository, whatever the number of rules, and again after 30 seconds; once more
    /// for the manifests of indexes and of what may be a build cache's; and lists the repositories only where the rule has a
    /// real glob. A repository that does not exist has no images. The next call asks for those that ECR did not answer of.
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
        let is_old = |known: &Known| !is_good(known.since, FRESH, now);
        let is_stale = |name: &&String| answers.get(*name).is_some_and(is_old);
        let stale: Vec<&String> = repositories.iter().filter(is_stale).collect();
        if missing.is_none()
            && let Some(error) = self.scan(stale, &mut answers, now).await
        {
            warn!(
                rule = rule.name,
                "answers of some minutes ago are used: {}",
                error_text(&error)
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
        rotate(&mut asked, now);
        let mut missing = None;
        let mut left = asked.len();
        let begin = Instant::now();
        let deadline = begin + self.patience.saturating_sub(self.spent(now));
        let listing = stream::iter(asked).map(async |repository| {
            let _turn = self.turns.acquire().await;
            (repository, self.listings.images(repository, now).await)
        });
        let mut listing = std::pin::pin!(listing.buffer_unordered(AT_ONCE));
        loop {
            match timeout_at(deadline, listing.next()).await {
                Ok(None) => break,
                Ok(Some((repository, Ok((since, answer))))) => {
                    let known = Known::new(now, since, answer);
                    locked(&self.answers).insert(repository.clone(), known.clone());
                    answers.insert(repository.clone(), known);
                    left -= 1;
                }
                Ok(Some((_, Err(error)))) if missing.is_some() => warn!("{}", error_text(&error)),
                Ok(Some((_, Err(error)))) => missing = Some(error),
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
        let all = if let Some((_, all)) = known.filter(|(at, _)| is_good(*at, MEMO, now)) {
            all
        } else {
            let all = self.listings.repositories().await?;
            *locked(&self.repositories) = (!all.is_empty()).then(|| (now, all.clone()));
            all
        };
        Ok(all.into_iter().filter(|name| rule.repositories.matches(name)).collect())
    }
}

/// Has a scan that never gets to its end begin elsewhere each time.
fn rotate(asked: &mut [&String], now: SystemTime) {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let start = seconds % u64::try_from(asked.len().max(1)).unwrap_or(1);
    asked.rotate_left(usize::try_from(start).unwrap_or_default());
}

fn names_an_image(answer: &Answer) -> bool {
    answer.values().any(|images| !images.is_empty())
}

#[cfg(all(test, feature = "mocks"))]
mod tests;
