//! Newest: which of a repository's images a rule wants, told image by image so that no listing is ever held.

use std::{cmp::Reverse, collections::BTreeMap, sync::LazyLock, time::SystemTime};

use regex_lite::{Match, Regex};
use semver::{BuildMetadata, Prerelease, Version};

use crate::{
    image::{CachedLayer, not_an_image_tag},
    rule::{Order, Rule},
};

/// Sets by how many tags one image is named at most: each is a name on the node, and one digest may have 1,000 of them.
pub const MAX_NAMES: usize = 5;
/// Limits how many of the newest images are remembered for each that is wanted, and beside: an image may have one for each
/// architecture and an index, and what turns out to be no image makes room for the next.
const SPARE: usize = 4;
const BESIDE: usize = 28;

/// The word by which a tag names an architecture, with what divides it from the others.
static ARCHITECTURE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[._-])(?:linux[._-])?(?:amd64|x86_64|x86-64|arm64(?:-?v8)?|arm64v8|aarch64)(?:$|[._-])")
        .expect("the pattern is a constant")
});

/// The largest first of two numbers that are a version's: dates and the numbers of builds have more digits.
const MAX_MAJOR_OF_TWO: u64 = 999_999;
/// A version's numbers, and after them a pre-release, and what `git describe` adds, or a build.
static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?:[A-Za-z][A-Za-z-]*)?([0-9]+(?:\.[0-9]+)*)(?:-(.+?))??(?:-([0-9]+-g[0-9a-f]{4,40}(?:-dirty)?)|_(.+))?$",
    )
    .expect("the pattern is a constant")
});

/// A tagged image, as ECR keeps it.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The registry's account.
    pub registry_id: String,
    /// The digest.
    pub digest: String,
    /// Every tag.
    pub tags: Vec<String>,
    /// Tells when the digest was pushed first.
    pub arrived: SystemTime,
    /// Tells whether it is an index.
    pub is_index: bool,
}

/// An image that a rule may want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The registry's account.
    pub registry_id: String,
    /// The digest.
    pub digest: String,
    /// At most [`MAX_NAMES`] of the tags that the rule takes.
    pub names: Vec<String>,
    /// Tells whether it is an index.
    is_index: bool,
    /// Says what it has in common with the same image of another architecture.
    group: String,
    /// Tells whether the group's name comes of a tag with an architecture.
    has_architecture: bool,
    /// Tells how the rule takes it.
    taken: Taken,
}

impl Candidate {
    /// Returns true where the manifest alone tells that it is an image: it is an index, or may be a build cache's layer.
    #[must_use]
    pub fn needs_manifest(&self) -> bool {
        self.is_index || self.taken == Taken::Doubtfully
    }

    fn is_named(&self) -> bool {
        self.taken == Taken::Literally
    }
}

/// Tells how a rule takes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It names one of the tags.
    Literally,
    /// A glob matches one of the tags.
    ByGlob,
    /// So it does, and the image may be a build cache's layer.
    Doubtfully,
}

/// Holds what makes one image newer than another.
type Rank = (Option<Version>, SystemTime, String);

/// A rule's candidates of one repository: as many as it can want, whatever the repository holds, and in whatever order it is
/// told of them.
#[derive(Clone, Debug)]
pub struct Shortlist<'a> {
    rule: &'a Rule,
    repository: &'a str,
    seen: Seen,
}

/// The candidates of a listing so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    newest: BTreeMap<Rank, Candidate>,
    /// Those that may be a build cache's layers: however many there are, they leave the others their room.
    doubtful: BTreeMap<Rank, Candidate>,
    /// Those that were too old for that, and have a tag that the rule names literally.
    named: BTreeMap<Rank, Candidate>,
}

impl<'a> Shortlist<'a> {
    /// Makes one that goes on where a listing was cut off; from its beginning where nothing was seen.
    #[must_use]
    pub fn new(rule: &'a Rule, repository: &'a str, seen: Seen) -> Self {
        Self { rule, repository, seen }
    }

    /// Returns the candidates so far.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Takes note of an image.
    pub fn add(&mut self, image: &Pushed) {
        if self.is_too_old(image) {
            return;
        }
        let Some((rank, candidate)) = self.candidate(image) else {
            return;
        };
        let most = self.most();
        let list = if candidate.taken == Taken::Doubtfully {
            &mut self.seen.doubtful
        } else {
            &mut self.seen.newest
        };
        list.insert(rank, candidate);
        if list.len() > most
            && let Some((rank, oldest)) = list.pop_first()
            && oldest.is_named()
        {
            self.seen.named.insert(rank, oldest);
        }
    }

    /// Chooses the rule's newest images, the newest first, of those that are images.
    ///
    /// Digests whose tags differ in an architecture only are one image, for which an index stands where there is one. After
    /// them come those that have a tag which the rule names literally: whoever moves such a tag to an older image means that.
    pub fn choose(&self, is_image: impl Fn(&Candidate) -> bool) -> Vec<&Candidate> {
        let mut candidates: Vec<(&Rank, &Candidate)> = self.seen.newest.iter().chain(&self.seen.doubtful).collect();
        candidates.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        candidates.retain(|(_, candidate)| is_image(candidate));
        let images = || candidates.iter().map(|(_, candidate)| *candidate);
        let mut groups: Vec<&str> = Vec::new();
        for candidate in images() {
            if groups.len() < self.rule.newest && !groups.contains(&candidate.group.as_str()) {
                groups.push(&candidate.group);
            }
        }
        let mut chosen: Vec<&Candidate> = Vec::new();
        for group in groups {
            let of_group: Vec<&Candidate> = images().filter(|candidate| candidate.group == group).collect();
            let has_index = of_group
                .iter()
                .any(|candidate| candidate.is_index && !candidate.has_architecture);
            chosen.extend(
                of_group
                    .into_iter()
                    .filter(|candidate| !(has_index && candidate.has_architecture)),
            );
        }
        let older = self.seen.named.values().rev().filter(|candidate| is_image(candidate));
        for named in images().chain(older).filter(|candidate| candidate.is_named()) {
            if chosen.iter().all(|candidate| candidate.digest != named.digest) {
                chosen.push(named);
            }
        }
        chosen
    }

    fn most(&self) -> usize {
        self.rule.newest * SPARE + BESIDE
    }

    /// Returns true where an image cannot be chosen any more, whatever its tags are made of: most are of that kind, and a
    /// function has little CPU.
    fn is_too_old(&self, image: &Pushed) -> bool {
        let oldest = self
            .seen
            .newest
            .first_key_value()
            .filter(|_| self.seen.newest.len() == self.most());
        self.rule.order == Order::Pushed
            && oldest.is_some_and(|((_, arrived, _), _)| image.arrived < *arrived)
            && !image.tags.iter().any(|tag| self.rule.tags.names(tag))
    }

    fn candidate(&self, image: &Pushed) -> Option<(Rank, Candidate)> {
        let tags = image.tags.iter().map(String::as_str);
        let taken = names(self.rule, self.repository, tags.clone());
        let first = taken.first()?;
        let how = if self.rule.tags.names(first) {
            Taken::Literally
        } else if is_doubtful(self.rule, self.repository, tags.clone()) {
            Taken::Doubtfully
        } else {
            Taken::ByGlob
        };
        let tags = tags.filter(|tag| is_taken(self.rule, self.repository, tag));
        let best = tags
            .clone()
            .min_by_key(|tag| (!has_architecture(tag), by_version(tag)))?;
        let version = match self.rule.order {
            Order::Pushed => None,
            Order::Version => tags.filter_map(version).max(),
        };
        let rank = (version, image.arrived, image.digest.clone());
        let candidate = Candidate {
            registry_id: image.registry_id.clone(),
            digest: image.digest.clone(),
            group: without_architecture(best),
            has_architecture: has_architecture(best),
            taken: how,
            is_index: image.is_index,
            names: taken.into_iter().map(str::to_owned).collect(),
        };
        Some((rank, candidate))
    }
}

/// Chooses by which of an image's tags a rule names it, at most [`MAX_NAMES`]: those that the rule names literally, then
/// semantic versions, the highest first, then the rest by the alphabet.
pub fn names<'a>(rule: &Rule, repository: &str, tags: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = tags.filter(|tag| is_taken(rule, repository, tag)).collect();
    names.sort_by_cached_key(|tag| (!rule.tags.names(tag), by_version(tag)));
    names.truncate(MAX_NAMES);
    names
}

/// Returns true where an image may be a build cache's layer by every tag that the rule takes. What a rule names literally is
/// none.
pub fn is_doubtful<'a>(rule: &Rule, repository: &str, tags: impl Iterator<Item = &'a str>) -> bool {
    let mut taken = tags.filter(|tag| is_taken(rule, repository, tag)).peekable();
    let may_be_layer = |tag| CachedLayer::of(repository, tag) == CachedLayer::Maybe && !rule.tags.names(tag);
    taken.peek().is_some() && taken.all(may_be_layer)
}

fn is_taken(rule: &Rule, repository: &str, tag: &str) -> bool {
    let is_layer = || CachedLayer::of(repository, tag) == CachedLayer::Yes && !rule.tags.names(tag);
    rule.tags.matches(tag) && not_an_image_tag(tag).is_none() && !is_layer()
}

/// Puts the highest version first, and what is none by the alphabet.
fn by_version(tag: &str) -> (Reverse<Option<Version>>, &str) {
    (Reverse(version(tag)), tag)
}

/// Reads a tag as a semantic version: with or without a word before it, a patch and an architecture. One number is none, nor
/// are two of which the first is a date's or a build's: they may be a commit's.
///
/// What follows a hyphen is a pre-release, what follows an underscore a build. What `git describe` adds is a build too: it is
/// after the version that it names.
fn version(tag: &str) -> Option<Version> {
    let tag = without_architecture(tag);
    let parts = VERSION.captures(&tag)?;
    let numbers: Option<Vec<u64>> = parts[1].split('.').map(|number| number.parse().ok()).collect();
    let (major, minor, patch) = match numbers?[..] {
        [major, minor] if major <= MAX_MAJOR_OF_TWO => (major, minor, 0),
        [major, minor, patch] => (major, minor, patch),
        _ => return None,
    };
    let mut version = Version::new(major, minor, patch);
    if let Some(pre) = parts.get(2) {
        version.pre = Prerelease::new(&identifiers(pre.as_str(), &['.', '_'])?).ok()?;
    }
    if let Some(build) = parts.get(3).or(parts.get(4)) {
        let build = identifiers(build.as_str(), &['.', '_', '-']).unwrap_or_default();
        version.build = BuildMetadata::new(&build).ok()?;
    }
    Some(version)
}

/// Writes what follows a version as semver reads it: words with dots between them, and numbers among them without leading
/// zeros. None where there is no word.
fn identifiers(text: &str, between: &[char]) -> Option<String> {
    let words = text.split(between).filter(|word| !word.is_empty()).map(|word| {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        match word.trim_start_matches('0') {
            "" => "0",
            number if is_number => number,
            _ => word,
        }
    });
    let words: Vec<&str> = words.collect();
    (!words.is_empty()).then(|| words.join("."))
}

fn has_architecture(tag: &str) -> bool {
    architecture(tag).is_some()
}

fn architecture(tag: &str) -> Option<Match<'_>> {
    // Each of the words has it, and few tags do.
    tag.contains("64").then(|| ARCHITECTURE.find(tag)).flatten()
}

/// Takes the word for an architecture out of a tag: `1.4-arm64-alpine` becomes `1.4-alpine`.
fn without_architecture(tag: &str) -> String {
    let Some(word) = architecture(tag) else {
        return tag.to_owned();
    };
    let (before, after) = (&tag[..word.start()], &tag[word.end()..]);
    if before.is_empty() || after.is_empty() {
        format!("{before}{after}")
    } else {
        format!("{before}-{after}")
    }
}

#[cfg(test)]
mod tests;
