//! The rules that want an image that arrived, and the names by which they do.

use std::time::SystemTime;

use aws_sdk_ecr::types::{ImageDetail, ImageStatus};
use futures_util::future::join_all;
use prefetch::{
    ecr::{ImagesError, ManifestKind, Registries, Registry, image_detail, manifests, warn_unread},
    error_text::error_text,
    image::{Image, ImageError, Kind, ecr_registry},
    newest,
    rule::Rule,
    rule_images::RuleImages,
    settings::Settings,
};

use crate::event::{Arrival, Ignored, IgnoredReason};

/// An image that is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The image; without a tag where it arrived without one.
    pub image: Image,
    /// The rules that want it, each with the names by which it does.
    pub rules: Vec<(&'a Rule, Vec<Image>)>,
}

/// Holds where it is read what is wanted.
pub struct Sources<'a> {
    pub registries: &'a Registries,
    pub images: &'a RuleImages,
    pub settings: &'a Settings,
}

/// Tells what is wanted, or why nothing is.
pub type Verdict<'a> = Result<Wanted<'a>, Ignored>;

/// Tells what is wanted of an image that arrived in a registry from which the stack takes images.
///
/// The table is asked once for each rule that may want it. ECR is asked only of what is left then: once where the event has no
/// media types or no tag, and once for the manifest of an index, which may be of images or of a build cache's layers, and of
/// what may be such a layer by its tag.
///
/// # Errors
/// [`ImagesError`] where ECR cannot be asked: a retry may fare better.
pub async fn wanted<'a>(sources: &Sources<'a>, arrival: &Arrival, now: SystemTime) -> Result<Verdict<'a>, ImagesError> {
    let (host, registry) = match registry(sources, arrival) {
        Ok(known) => known,
        Err(ignored) => return Ok(Err(ignored)),
    };
    let mut rules = match rules(sources, arrival, &host) {
        Ok(rules) => rules,
        Err(ignored) => return Ok(Err(ignored)),
    };
    if let Err(ignored) = retain_used(sources.images, arrival, &host, &mut rules, now).await {
        return Ok(Err(ignored));
    }
    let Known { tags, manifest } = match known(registry, arrival).await? {
        Ok(known) => known,
        Err(ignored) => return Ok(Err(ignored)),
    };
    if let Err(ignored) = retain_sure(registry, arrival, &tags, manifest, &mut rules).await? {
        return Ok(Err(ignored));
    }
    Ok(named(&host, arrival, &rules, &tags))
}

/// Finds the registry that an image arrived in, and its host name.
fn registry<'a>(sources: &Sources<'a>, arrival: &Arrival) -> Result<(String, &'a Registry), Ignored> {
    let Arrival { account, region, .. } = arrival;
    let host = ecr_registry(account, region, sources.settings.registry_endpoint).map_err(|error| malformed(&error))?;
    match sources.registries.of_host(&host) {
        Some(registry) => Ok((host, registry)),
        None => Err(Ignored::new(
            IgnoredReason::ForeignRegistry,
            format!(
                "the registry of account {account} in {region} is not this stack's, and its parameter CentralRegistries does \
                 not name it"
            ),
        )),
    }
}

/// Picks the rules that may want an image, by its names and its registry.
fn rules<'a>(sources: &Sources<'a>, arrival: &Arrival, host: &str) -> Result<Vec<&'a Rule>, Ignored> {
    let rules = sources.settings.rules.iter();
    let rules = rules.filter(|rule| may_want(rule, arrival) && sources.images.brings_from(rule, host));
    let rules: Vec<&Rule> = rules.collect();
    if rules.is_empty() {
        return Err(no_rule(arrival, host));
    }
    if let Some(tag) = &arrival.tag
        && rules
            .iter()
            .all(|rule| names(rule, arrival, std::slice::from_ref(tag)).is_empty())
    {
        return Err(build_cache(arrival));
    }
    Ok(rules)
}

/// Leaves the rules that take the image's repository by the use that their nodes make of it.
async fn retain_used(
    images: &RuleImages,
    arrival: &Arrival,
    registry: &str,
    rules: &mut Vec<&Rule>,
    now: SystemTime,
) -> Result<(), Ignored> {
    let asked = rules
        .iter()
        .map(|rule| images.takes(rule, registry, &arrival.repository, now));
    let taken = join_all(asked).await;
    if !taken.contains(&true) {
        return Err(not_used(arrival, rules));
    }
    let mut taken = taken.into_iter();
    rules.retain(|_| taken.next().unwrap_or(true));
    Ok(())
}

fn not_used(arrival: &Arrival, rules: &[&Rule]) -> Ignored {
    let repository = &arrival.repository;
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let names = names.join(", ");
    Ignored::new(
        IgnoredReason::NotUsed,
        format!(
            "no node of {names} runs an image of {repository}, or lately ran one: it is taken once a pod's own pull or a job \
             has brought one, or by a rule with \"used\": false"
        ),
    )
}

fn malformed(error: &ImageError) -> Ignored {
    Ignored::new(IgnoredReason::Malformed, error.to_string())
}

/// Leaves the rules that want the image by a tag which may be a build cache's only where its manifest tells that it is none.
async fn retain_sure(
    registry: &Registry,
    arrival: &Arrival,
    tags: &[String],
    manifest: Option<ManifestKind>,
    rules: &mut Vec<&Rule>,
) -> Result<Result<(), Ignored>, ImagesError> {
    let is_doubtful = |rule: &&Rule| newest::is_doubtful(rule, &arrival.repository, tags.iter().map(String::as_str));
    if !rules.iter().any(is_doubtful) {
        return Ok(Ok(()));
    }
    let manifest = match manifest {
        None => read_manifest(registry, arrival).await?,
        read => read,
    };
    match manifest {
        None => return Ok(Err(gone(arrival))),
        Some(ManifestKind::Other) => rules.retain(|rule| !is_doubtful(rule)),
        Some(ManifestKind::Image | ManifestKind::Unread(_)) => {}
    }
    if rules.is_empty() {
        return Ok(Err(build_cache(arrival)));
    }
    Ok(Ok(()))
}

/// Reads the image's manifest; none where it is gone.
async fn read_manifest(registry: &Registry, arrival: &Arrival) -> Result<Option<ManifestKind>, ImagesError> {
    let Arrival { repository, digest, .. } = arrival;
    let told = manifests(registry, repository, std::slice::from_ref(digest))
        .await?
        .remove(digest);
    if let Some(ManifestKind::Unread(why)) = &told {
        warn_unread(repository, why);
    }
    Ok(told)
}

fn names<'a>(rule: &Rule, arrival: &Arrival, tags: &'a [String]) -> Vec<&'a str> {
    newest::names(rule, &arrival.repository, tags.iter().map(String::as_str))
}

fn build_cache(arrival: &Arrival) -> Ignored {
    let tag = arrival.tag.as_deref().unwrap_or("of 64 hexadecimal digits");
    Ignored::new(
        IgnoredReason::NotAnImage,
        format!("{}: the tag {tag} is a build cache's", arrival.repository),
    )
}

fn may_want(rule: &Rule, arrival: &Arrival) -> bool {
    match &arrival.tag {
        Some(tag) => rule.wants(&arrival.repository, tag),
        None => rule.repositories.matches(&arrival.repository),
    }
}

fn no_rule(arrival: &Arrival, host: &str) -> Ignored {
    let repository = format!("{host}/{}", arrival.repository);
    Ignored::new(
        IgnoredReason::NoRule,
        match &arrival.tag {
            Some(tag) => format!("no rule wants {repository}:{tag}"),
            None => format!("no rule wants {repository} by a tag of the image's"),
        },
    )
}

/// Holds what ECR and the event tell of an image.
struct Known {
    tags: Vec<String>,
    /// Its manifest, where that was read.
    manifest: Option<ManifestKind>,
}

/// Asks ECR for an image's kind and tags, where the event does not tell them; none where it is gone. What a central registry
/// keeps from the function nodes may pull all the same.
async fn kind_and_tags(registry: &Registry, arrival: &Arrival) -> Result<Option<(Kind, Vec<String>)>, ImagesError> {
    let Arrival { repository, digest, .. } = arrival;
    let mut tags: Vec<String> = arrival.tag.iter().cloned().collect();
    if arrival.kind != Kind::Unknown && !tags.is_empty() {
        return Ok(Some((arrival.kind.clone(), tags)));
    }
    let detail = match image_detail(registry, repository, digest).await {
        Err(error) if !tags.is_empty() && registry.is_closed(&error) => {
            warn_unread(repository, &error_text(&error));
            return Ok(Some((Kind::Unknown, tags)));
        }
        detail => detail?,
    };
    let Some(detail) = detail.filter(is_active) else {
        return Ok(None);
    };
    let kind = if detail.subject_manifest_digest().is_some() {
        Kind::Other("it refers to another image".to_owned())
    } else {
        Kind::of(detail.image_manifest_media_type(), detail.artifact_media_type())
    };
    if tags.is_empty() {
        tags = detail.image_tags.unwrap_or_default();
    }
    Ok(Some((kind, tags)))
}

/// Tells an image's tags, or why it is none.
async fn known(registry: &Registry, arrival: &Arrival) -> Result<Result<Known, Ignored>, ImagesError> {
    let Some((mut kind, tags)) = kind_and_tags(registry, arrival).await? else {
        return Ok(Err(gone(arrival)));
    };
    let mut manifest = None;
    if kind == Kind::Index {
        manifest = read_manifest(registry, arrival).await?;
        match &manifest {
            None => return Ok(Err(gone(arrival))),
            Some(ManifestKind::Other) => kind = Kind::Other("the index leads to no image".to_owned()),
            Some(ManifestKind::Image | ManifestKind::Unread(_)) => {}
        }
    }
    Ok(match kind {
        Kind::Other(message) => Err(Ignored::new(IgnoredReason::NotAnImage, message)),
        _ if tags.is_empty() => Err(Ignored::new(IgnoredReason::Untagged, "the image has no tag")),
        _ => Ok(Known { tags, manifest }),
    })
}

fn is_active(detail: &ImageDetail) -> bool {
    detail
        .image_status()
        .is_none_or(|status| *status == ImageStatus::Active)
}

fn gone(arrival: &Arrival) -> Ignored {
    let Arrival { repository, digest, .. } = arrival;
    Ignored::new(
        IgnoredReason::Gone,
        format!("ECR has {repository}@{digest} no more, or in its archive"),
    )
}

/// Names an image by the tags that each rule takes.
fn named<'a>(registry: &str, arrival: &Arrival, rules: &[&'a Rule], tags: &[String]) -> Verdict<'a> {
    let name = |tag: Option<&str>| Image::new(registry, &arrival.repository, tag, &arrival.digest);
    let named = || -> Result<Wanted<'a>, ImageError> {
        let mut of_rules = Vec::with_capacity(rules.len());
        for rule in rules {
            let tags = names(rule, arrival, tags);
            let names: Result<Vec<Image>, ImageError> = tags.into_iter().map(|tag| name(Some(tag))).collect();
            of_rules.push((*rule, names?));
        }
        of_rules.retain(|(_, names)| !names.is_empty());
        Ok(Wanted {
            image: name(arrival.tag.as_deref())?,
            rules: of_rules,
        })
    };
    match named() {
        Err(error) => Err(malformed(&error)),
        Ok(wanted) if wanted.rules.is_empty() => Err(no_rule(arrival, registry)),
        Ok(wanted) => Ok(wanted),
    }
}
