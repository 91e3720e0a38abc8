//! Describes what ECR lists: repositories, and of each the images that rules can want.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::{
    error::SdkError,
    operation::describe_images::{DescribeImagesError, DescribeImagesOutput},
    types::{DescribeImagesFilter, ImageDetail, ImageStatusFilter, TagStatus},
};
use tracing::warn;

use super::{
    error::ImagesError,
    manifests::{MAX_IDS, ManifestKind, manifests, warn_unread},
    registries::{Registry, is_denied},
};
use crate::{
    image::Kind,
    locked::locked,
    newest::{Candidate, Pushed, Seen, Shortlist},
    rule::Rule,
};

/// Sets how long an answer is good that a scan got which could not be ended: the next one goes on where it stopped.
pub(super) const UNFINISHED: Duration = Duration::from_mins(10);
/// Limits how many rows one page of ECR has at most (ECR service model).
const PAGE_SIZE: i32 = 1000;
/// Limits for how many manifests it is remembered whether they are images', of some 100 bytes each.
const MAX_MANIFESTS: usize = 20_000;

/// Holds what a repository's images are to the rules that take it, by their names.
pub(super) type Answer = BTreeMap<String, Vec<Candidate>>;

/// Lists repositories and images, and remembers where it was cut off.
#[derive(Clone)]
pub(super) struct Listings {
    registry: Registry,
    rules: Arc<[Rule]>,
    /// Tells of manifests whether they are an image's, which does not change.
    manifests: Arc<Mutex<HashMap<String, bool>>>,
    /// The repositories of which it was said that they, or manifests of theirs, cannot be read.
    unread: Arc<Mutex<HashSet<String>>>,
    /// The listings that were cut off, by the repository's name.
    pub(super) begun: Arc<Mutex<HashMap<String, PartialListing>>>,
}

/// A listing of a repository's images that was cut off.
#[derive(Clone)]
pub(super) struct PartialListing {
    pub(super) since: SystemTime,
    /// The page that is next.
    token: String,
    /// Says what each of the repository's rules can want of the pages before.
    seen: Vec<Seen>,
}

/// The rules that take a repository, each with what it can want of the pages that were read.
type Shortlists<'a> = Vec<(&'a Rule, Shortlist<'a>)>;

impl Listings {
    /// Asks this registry for what these rules can want.
    pub(super) fn new(registry: Registry, rules: Arc<[Rule]>) -> Self {
        Self {
            registry,
            rules,
            manifests: Arc::default(),
            unread: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// Lists all repositories.
    ///
    /// # Errors
    /// [`ImagesError::Repositories`] where ECR does not answer.
    pub(super) async fn repositories(&self) -> Result<Vec<String>, ImagesError> {
        let request = self.registry.client().describe_repositories().max_results(PAGE_SIZE);
        let mut pages = request.into_paginator().items().send();
        let mut names = Vec::new();
        while let Some(repository) = pages.next().await {
            let repository = repository.map_err(|error| ImagesError::Repositories(Box::new(error)))?;
            names.extend(repository.repository_name);
        }
        Ok(names)
    }

    /// Reads a repository page by page, and keeps of each what a rule can want; tells since when. What was cut off goes on where
    /// it stopped. A repository that does not exist has no images, nor has one of a central registry that may not be read.
    ///
    /// # Errors
    /// [`ImagesError`] where ECR does not answer.
    pub(super) async fn images(&self, repository: &str, now: SystemTime) -> Result<(SystemTime, Answer), ImagesError> {
        let (since, mut token, mut shortlists) = self.begin(repository, now);
        loop {
            let Some(page) = self.page(repository, token).await? else {
                return Ok((now, Answer::new()));
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
            let seen = shortlists.iter().map(|(_, shortlist)| shortlist.seen().clone());
            let seen = seen.collect();
            locked(&self.begun).insert(repository.to_owned(), PartialListing { since, token, seen });
        }
        let others = self.manifests_of_no_image(repository, &shortlists).await?;
        locked(&self.begun).remove(repository);
        let chosen = shortlists.iter().map(|(rule, shortlist)| {
            let chosen = shortlist.choose(|candidate| is_none_of(candidate, &others));
            (rule.name.clone(), chosen.into_iter().cloned().collect())
        });
        Ok((since, chosen.collect()))
    }

    /// Begins a listing, or takes up one that was cut off: since when it is, its next page, and what was seen.
    fn begin<'a>(&'a self, repository: &'a str, now: SystemTime) -> (SystemTime, Option<String>, Shortlists<'a>) {
        let takes = |rule: &&Rule| rule.repositories.matches(repository);
        let rules: Vec<&Rule> = self.rules.iter().filter(takes).collect();
        let begun = locked(&self.begun).get(repository).cloned();
        let begun = begun.filter(|begun| is_good(begun.since, UNFINISHED, now));
        let (since, token, seen) = match begun {
            Some(begun) => (begun.since, Some(begun.token), begun.seen),
            None => (now, None, vec![Seen::default(); rules.len()]),
        };
        let shortlists = rules.into_iter().zip(seen);
        let shortlists = shortlists.map(|(rule, seen)| (rule, Shortlist::new(rule, repository, seen)));
        (since, token, shortlists.collect())
    }

    /// Reads a page of a repository's images; none where the repository does not exist.
    async fn page(&self, repository: &str, token: Option<String>) -> Result<Option<DescribeImagesOutput>, ImagesError> {
        let active_and_tagged = DescribeImagesFilter::builder()
            .tag_status(TagStatus::Tagged)
            .image_status(ImageStatusFilter::Active);
        let request = self
            .registry
            .describe_images(repository)
            .filter(active_and_tagged.build())
            .max_results(PAGE_SIZE)
            .set_next_token(token);
        match request.send().await {
            Ok(page) => Ok(Some(page)),
            Err(SdkError::ServiceError(refused)) if self.is_closed(repository, refused.err()) => Ok(None),
            Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
                locked(&self.begun).remove(repository);
                warn!(repository.name = repository, "repository {repository} does not exist");
                Ok(None)
            }
            Err(error) => {
                let refusal = error.as_service_error();
                if refusal.is_some_and(DescribeImagesError::is_invalid_parameter_exception) {
                    locked(&self.begun).remove(repository); // the token is not taken any more
                }
                Err(ImagesError::Images(repository.to_owned(), Box::new(error)))
            }
        }
    }

    /// Returns true where it is a central registry's repository that a policy keeps from this account, or that is not there, and
    /// says so once: it takes nothing from the others.
    fn is_closed(&self, repository: &str, refusal: &DescribeImagesError) -> bool {
        let is_meant = is_denied(refusal) || refusal.is_repository_not_found_exception();
        let Some(account) = self.registry.central_account().filter(|_| is_meant) else {
            return false;
        };
        locked(&self.begun).remove(repository);
        if locked(&self.unread).insert(repository.to_owned()) {
            warn!(
                repository.name = repository,
                registry.account = account,
                "repository {repository} of account {account} is not there, or its policy does not allow ecr:DescribeImages to \
                 this function's role: none of its images is taken for a newest one"
            );
        }
        true
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
            let known = self.manifests_of_images(repository, &unknown).await?;
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

    /// Asks of manifests, those that are known already aside, whether they are an image's.
    async fn manifests_of_images(
        &self,
        repository: &str,
        digests: &HashSet<String>,
    ) -> Result<HashMap<String, bool>, ImagesError> {
        let mut known = self.known_manifests(digests);
        let unknown = digests.iter().filter(|digest| !known.contains_key(*digest));
        let unknown: Vec<String> = unknown.cloned().collect();
        for digests in unknown.chunks(MAX_IDS) {
            let answer = manifests(&self.registry, repository, digests).await?;
            self.remember_manifests(&answer);
            self.warn_of_unread(repository, &answer);
            known.extend(answer.into_iter().map(|(digest, told)| (digest, told.may_run())));
        }
        Ok(known)
    }

    fn known_manifests(&self, digests: &HashSet<String>) -> HashMap<String, bool> {
        let manifests = locked(&self.manifests);
        let known = digests
            .iter()
            .filter_map(|digest| Some((digest.clone(), *manifests.get(digest)?)));
        known.collect()
    }

    fn remember_manifests(&self, told: &HashMap<String, ManifestKind>) {
        let mut manifests = locked(&self.manifests);
        if manifests.len() > MAX_MANIFESTS {
            manifests.clear();
        }
        let read = told.iter().filter(|(_, told)| !matches!(told, ManifestKind::Unread(_)));
        manifests.extend(read.map(|(digest, told)| (digest.clone(), told.may_run())));
    }

    fn warn_of_unread(&self, repository: &str, told: &HashMap<String, ManifestKind>) {
        let unread = told.values().find_map(|told| match told {
            ManifestKind::Unread(why) => Some(why),
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

/// Returns true where what is known since then is known for less than so long.
pub(super) fn is_good(since: SystemTime, period: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|age| age < period)
}
