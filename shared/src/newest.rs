//! Newest: which of a repository's images a rule wants, told image by image so that no listing is ever held.

use std::{cmp::Reverse, collections::BTreeMap, sync::LazyLock, time::SystemTime};

use regex_lite::{Match, Regex};
use semver::{BuildMetadata, Prerelease, Version};

use crate::{
    image::{CachedLayer, not_an_image_tag},
    rule::{Order, Rule},
};

/// By how many tags one image is named at most: each is a name on the node, and one digest may have 1,000 of them.
pub const MAX_NAMES: usize = 5;
/// How many of the newest images are remembered for each that is wanted, and beside: an image may have one for each
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
    /// When the digest was pushed first.
    pub arrived: SystemTime,
    /// Whether it is an index.
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
    /// Whether it is an index.
    is_index: bool,
    /// What it has in common with the same image of another architecture.
    group: String,
    /// Whether the group's name comes of a tag with an architecture.
    has_architecture: bool,
    /// How the rule takes it.
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

/// How a rule takes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It names one of the tags.
    Literally,
    /// A glob matches one of the tags.
    ByGlob,
    /// So it does, and the image may be a build cache's layer.
    Doubtfully,
}

/// What makes one image newer than another.
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

    /// The candidates so far.
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
        let best = tags.min_by_key(|tag| (!has_architecture(tag), by_version(tag)))?;
        let version = match self.rule.order {
            Order::Pushed => None,
            Order::Version => image
                .tags
                .iter()
                .filter(|tag| is_taken(self.rule, self.repository, tag))
                .filter_map(|tag| version(tag))
                .max(),
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::rule::parse_rules;

    fn rule(fields: &str) -> Rule {
        parse_rules(&format!(r#"[{{"name": "a"{fields}}}]"#)).unwrap().remove(0)
    }

    fn pushed(digest: &str, minutes: u64, tags: &[&str]) -> Pushed {
        Pushed {
            registry_id: "123456789012".to_owned(),
            digest: digest.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            arrived: SystemTime::UNIX_EPOCH + Duration::from_mins(minutes),
            is_index: false,
        }
    }

    /// The names of what a rule chooses.
    fn chosen<'a>(rule: &Rule, images: impl IntoIterator<Item = &'a Pushed>) -> Vec<Vec<String>> {
        let mut shortlist = Shortlist::new(rule, "app", Seen::default());
        images.into_iter().for_each(|image| shortlist.add(image));
        let names = |candidate: &Candidate| candidate.names.clone();
        shortlist.choose(|_| true).into_iter().map(names).collect()
    }

    /// The images of an answer of DescribeImages.
    fn answered(answer: &str) -> Vec<Pushed> {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let details = answer["imageDetails"].as_array().unwrap();
        let image = |detail: &Value| Pushed {
            registry_id: "123456789012".to_owned(),
            digest: detail["imageDigest"].as_str().unwrap().to_owned(),
            tags: serde_json::from_value(detail["imageTags"].clone()).unwrap(),
            arrived: detail["imagePushedAt"]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap()
                .into(),
            is_index: false,
        };
        details.iter().map(image).collect()
    }

    #[test]
    fn a_digest_with_a_thousand_tags_is_one_image_with_five_names() {
        let tags: Vec<String> = (0..1000).map(|k| format!("main-{k:04}")).collect();
        let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        assert_eq!(
            chosen(&rule(""), [&pushed("a", 1, &tags)]),
            [["main-0000", "main-0001", "main-0002", "main-0003", "main-0004"]]
        );
        tags.extend(["v1.9.0", "1.10", "stable"]);
        let names = chosen(&rule(r#", "tags": ["*", "stable"]"#), [&pushed("a", 1, &tags)]);
        assert_eq!(names, [["stable", "1.10", "v1.9.0", "main-0000", "main-0001"]]);
    }

    #[test]
    fn a_back_port_is_newest_by_its_push_and_the_highest_version_by_order() {
        let images = answered(include_str!("newest/backport-after-release.json"));
        assert_eq!(chosen(&rule(""), &images), [["4.9.17"]]);
        assert_eq!(chosen(&rule(r#", "order": "version""#), &images), [["5.1.0"]]);
    }

    #[test]
    fn the_same_image_for_each_architecture_is_one_of_the_newest() {
        let images = answered(include_str!("newest/tag-per-architecture.json"));
        assert_eq!(chosen(&rule(""), &images), [["1.8.0-arm64"], ["1.8.0-amd64"]]);
        let older = pushed("old", 1, &["1.7.0-amd64"]);
        assert_eq!(chosen(&rule(""), images.iter().chain([&older])).len(), 2);
        let index = Pushed {
            is_index: true,
            ..pushed("index", 40_000_000, &["1.8.0"])
        };
        assert_eq!(chosen(&rule(""), images.iter().chain([&index])), [["1.8.0"]]);
        // An image that is no index is one architecture's own.
        let single = pushed("single", 40_000_000, &["1.8.0"]);
        assert_eq!(chosen(&rule(""), images.iter().chain([&single])).len(), 3);
    }

    #[test]
    fn a_signature_with_a_word_before_it_is_never_newest() {
        let images = answered(include_str!("newest/prefixed-signature-is-newest.json"));
        assert_eq!(chosen(&rule(""), &images), [["4.2.0"]]);
    }

    #[test]
    fn an_old_image_with_a_tag_that_the_rule_names_is_brought_beside_the_newest() {
        let old = pushed("old", 1, &["v1", "prod"]);
        let newer: Vec<String> = (2..100).map(|k| format!("v{k}")).collect();
        let newer: Vec<Pushed> = (2..100).zip(&newer).map(|(k, tag)| pushed(tag, k, &[tag])).collect();
        let images = || [&old].into_iter().chain(&newer);
        assert_eq!(chosen(&rule(r#", "tags": ["*"]"#), images()), [["v99"]]);
        let named = chosen(&rule(r#", "tags": ["*", "prod"]"#), images());
        assert_eq!(named, [vec!["v99"], vec!["prod", "v1"]]);
        let excluded = chosen(&rule(r#", "tags": ["*", "prod", "!prod"]"#), images());
        assert_eq!(excluded, [["v99"]]);
    }

    #[test]
    fn what_is_no_image_makes_room_for_the_next() {
        let rule = rule("");
        let mut shortlist = Shortlist::new(&rule, "app", Seen::default());
        shortlist.add(&pushed("cache", 2, &["buildcache"]));
        shortlist.add(&pushed("image", 1, &["v1"]));
        let chosen = shortlist.choose(|candidate| candidate.digest != "cache");
        assert_eq!(chosen[0].names, ["v1"]);
    }

    #[test]
    fn what_may_be_a_caches_layers_takes_no_room_from_images_and_what_a_rule_names_is_none() {
        let tags: Vec<String> = (0..1000).map(|k| format!("{k:064}")).collect();
        let layers: Vec<Pushed> = (2..).zip(&tags).map(|(k, tag)| pushed(tag, k, &[tag])).collect();
        let image = pushed("image", 1, &["v1"]);
        let images = || layers.iter().chain([&image]);
        let of = |rule: &Rule, is_image: bool| {
            let mut shortlist = Shortlist::new(rule, "app", Seen::default());
            images().for_each(|image| shortlist.add(image));
            let chosen = shortlist.choose(|candidate| is_image || !candidate.needs_manifest());
            chosen
                .into_iter()
                .map(|image| image.names[0].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&rule(""), false), ["v1"]);
        assert_eq!(of(&rule(""), true), [tags[999].as_str()]);
        let named = rule(&format!(r#", "tags": ["*", "{}"]"#, tags[5]));
        assert_eq!(of(&named, false), [tags[5].as_str()]);
        let mut cache = Shortlist::new(&named, "ci/app/cache", Seen::default());
        images().for_each(|image| cache.add(image));
        assert_eq!(cache.choose(|_| true)[0].names, [tags[5].as_str()]);
    }

    #[test]
    fn versions_are_read_as_people_write_them() {
        let mut tags = [
            "1.4",
            "v1.4.1-rc.1",
            "1.4.1-arm64",
            "v2.0.0-beta",
            "2026.01.05",
            "linux-amd64-1.4.2",
        ];
        tags.sort_by_key(|tag| version(tag).unwrap());
        assert_eq!(
            tags,
            [
                "1.4",
                "v1.4.1-rc.1",
                "1.4.1-arm64",
                "linux-amd64-1.4.2",
                "v2.0.0-beta",
                "2026.01.05"
            ]
        );
        for tag in [
            "1234567",
            "v2",
            "main",
            "1.2.3.4",
            "1.x",
            "latest",
            "",
            "-",
            "1.2-",
            "v",
            "1..2",
            "20260105.1",
            "1.2_",
            "app-",
            "release-20260105.12",
            "1.2.3rc1",
            "99999999999999999999.1",
        ] {
            assert_eq!(version(tag), None, "{tag}");
        }
    }

    #[test]
    fn the_higher_version_is_newer_however_it_is_written() {
        for ascending in [
            &[
                "1.4.0-20251129.0830",
                "1.4.0-20251129.0931",
                "1.4.0-20251129.1015",
                "1.4.0",
            ][..],
            &[
                "1.4.0-rc_1",
                "1.4.0-rc_2",
                "1.4.0-rc_10",
                "1.4.0",
                "1.4.0_4",
                "1.4.0_12",
                "1.4.1",
            ],
            &["release-1.2.2", "app-v1.2.3", "release-1.10.0"],
            &["20260105.1", "v5.1.0"],
            &[
                "1.2.3-rc.1",
                "1.2.3-rc.1-2-gabc1234",
                "1.2.3",
                "1.2.3-9-gabc1234",
                "1.2.3-45-gabc1234",
                "1.2.4-rc.1",
            ],
            &["1.4.0-000", "1.4.0-00.1", "1.4.0-a..1"],
        ] {
            for pair in ascending.windows(2) {
                assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
            }
        }
    }

    #[test]
    fn an_architecture_is_a_word_of_its_own() {
        for (tag, without) in [
            ("1.4-amd64", "1.4"),
            ("arm64-1.4", "1.4"),
            ("1.4_aarch64", "1.4"),
            ("1.4-linux-x86_64-alpine", "1.4-alpine"),
            ("1.4.arm64v8", "1.4"),
            ("1.4-charm64", "1.4-charm64"),
            ("amd64", ""),
        ] {
            assert_eq!(without_architecture(tag), without);
        }
    }

    proptest! {
        #[test]
        fn a_version_is_one_whatever_word_stands_before_it_and_pre_release_follows(
            word in "([a-z]{1,5}-){0,2}v?",
            core in "[0-9]{1,4}\\.[0-9]{1,4}\\.[0-9]{1,4}",
            pre in "[A-Za-z0-9][A-Za-z0-9._-]{0,12}",
        ) {
            prop_assume!(!has_architecture(&format!("{word}{core}-{pre}")));
            let plain = version(&core).unwrap();
            let told = version(&format!("{word}{core}-{pre}")).unwrap();
            prop_assert_eq!((told.major, told.minor, told.patch), (plain.major, plain.minor, plain.patch));
        }
    }

    fn any_images() -> impl Strategy<Value = Vec<Pushed>> {
        let tag = "(v?[0-3]\\.[0-3](-rc1)?|main|prod|stable)(-amd64|-arm64)?";
        let image = (0..500_u64, prop::collection::btree_set(tag, 1..4), any::<bool>());
        prop::collection::vec(image, 0..150).prop_map(|images| {
            let image =
                |(k, (minutes, tags, is_index)): (usize, (u64, std::collections::BTreeSet<String>, bool))| Pushed {
                    tags: tags.into_iter().collect(),
                    is_index,
                    ..pushed(&format!("{k:03}"), minutes, &[])
                };
            images.into_iter().enumerate().map(image).collect()
        })
    }

    proptest! {
        #[test]
        fn the_choice_does_not_depend_on_the_order_in_which_images_are_told(
            (images, shuffled) in any_images().prop_flat_map(|images| (Just(images.clone()), Just(images).prop_shuffle())),
            newest in 1..4_usize,
            order in prop::sample::select(vec!["pushed", "version"]),
        ) {
            let rule = rule(&format!(r#", "newest": {newest}, "order": "{order}", "tags": ["*", "prod", "!stable*"]"#));
            prop_assert_eq!(chosen(&rule, &images), chosen(&rule, &shuffled));
        }

        #[test]
        fn the_newest_and_every_image_that_the_rule_names_are_chosen_with_few_names(
            images in any_images(),
            newest in 1..4_usize,
        ) {
            let rule = rule(&format!(r#", "newest": {newest}, "tags": ["*", "prod", "!stable*"]"#));
            let chosen = chosen(&rule, &images);
            prop_assert!(chosen.iter().all(|names| (1..=MAX_NAMES).contains(&names.len())));
            let takes = |image: &&Pushed| image.tags.iter().any(|tag| rule.tags.matches(tag));
            let last = images.iter().filter(takes).max_by_key(|image| (image.arrived, &image.digest));
            if let Some(last) = last {
                // An index may stand for it.
                let version = |tags: &[String]| tags.iter().filter(|tag| rule.tags.matches(tag)).map(|tag| without_architecture(tag)).collect::<Vec<_>>();
                let last = version(&last.tags);
                prop_assert!(chosen.iter().flatten().any(|name| last.contains(&without_architecture(name))));
            }
            for image in images.iter().filter(|image| image.tags.iter().any(|tag| tag == "prod")) {
                prop_assert!(chosen.iter().any(|names| names[0] == "prod" && image.tags.contains(&names[names.len() - 1])));
            }
        }
    }
}
