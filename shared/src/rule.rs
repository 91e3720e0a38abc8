//! Rules: which images go to which nodes.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, sync::LazyLock};

use glob::{Pattern, PatternError};
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    node::{MAX_NODE_TAGS, MAX_TAG_VALUES},
    unique_keys::UniqueKeys,
};

/// The most images of one repository that a rule may ask for, or let a node keep; the document keeps no more either.
pub const IMAGES_MAX: usize = 50;
/// The largest limit on an image's size that the document takes.
const GIB_MAX: usize = 9999;

const FIELDS: &str =
    "name, repositories, tags, nodes, newest, order, keep, pin, maxImageGiB, maxConcurrency, maxErrors";

static NAME: LazyLock<Regex> = LazyLock::new(|| pattern("[a-z0-9-]{1,32}"));
/// SSM's own pattern and length for rate control (SSM service model, `MaxConcurrency`).
static MAX_CONCURRENCY: LazyLock<Regex> = LazyLock::new(|| pattern("[1-9][0-9]{0,6}|[1-9][0-9]?%|100%"));
/// SSM's own pattern and length for rate control (SSM service model, `MaxErrors`).
static MAX_ERRORS: LazyLock<Regex> = LazyLock::new(|| pattern("0|[1-9][0-9]{0,6}|[0-9]%|[1-9][0-9]%|100%"));
/// The ASCII characters of SSM's `TargetKey`, less `tag:` (SSM service model).
static TAG_KEY: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9 _.:/=@-]{1,128}"));
/// What repositories and tags are made of, and what globs add; anything else could match nothing.
static GLOB: LazyLock<Regex> = LazyLock::new(|| pattern(r"!?[A-Za-z0-9._/*?\[\]!-]+"));

/// Which of two images is the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The one that was pushed later.
    #[default]
    Pushed,
    /// The one whose tags that the rule takes have the higher semantic version.
    Version,
}

/// One rule of the list: images that match it go to nodes that match it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's unique name: `[a-z0-9-]{1,32}`.
    pub name: String,
    /// The repositories whose images the rule brings.
    pub repositories: Globs,
    /// The tags of the images that the rule brings.
    pub tags: Globs,
    /// The EC2 tags a node must carry beside the cluster's own, each with the values that are accepted.
    pub nodes: BTreeMap<String, Vec<String>>,
    /// How many newest images per repository a new node gets.
    pub newest: usize,
    /// Which images are newest.
    pub order: Order,
    /// How many newest images per repository, of those that were prefetched, stay on a node: none is removed where it
    /// is 0, and it is never less than `newest` otherwise.
    pub keep: usize,
    /// Whether prefetched images are exempt from kubelet's garbage collection while they are kept.
    pub pin: bool,
    /// The compressed size above which an image is skipped, in GiB; 0 is no limit.
    pub max_image_gib: usize,
    /// On how many nodes a command runs at once: a number or a percentage.
    pub max_concurrency: String,
    /// After how many failing nodes a command is sent to no further ones: a number or a percentage.
    pub max_errors: String,
}

impl Rule {
    /// Whether the rule brings this image of this repository.
    #[must_use]
    pub fn wants(&self, repository: &str, tag: &str) -> bool {
        self.repositories.matches(repository) && self.tags.matches(tag)
    }

    /// How many images of a repository a node may hold by what a launch or a reconcile names: the newest, and one for each tag
    /// that the rule names literally.
    #[must_use]
    pub fn most_named(&self) -> usize {
        self.newest + self.tags.plain().count()
    }

    /// How many images of a repository the rule names beside those that were pushed last: one for each tag that it names
    /// literally, and the newest where those are the highest versions.
    #[must_use]
    pub fn most_beside_pushes(&self) -> usize {
        match self.order {
            Order::Pushed => self.tags.plain().count(),
            Order::Version => self.most_named(),
        }
    }
}

/// Why a rule list cannot be used; the message names the rule, the field, the value and what is accepted.
#[derive(Debug, Error)]
pub enum RuleError {
    /// The text is not JSON.
    #[error("the rules are no JSON list: {0}")]
    Json(#[source] serde_json::Error),
    /// The JSON is not a list of at least one object.
    #[error("the rules are {0}: accepted is a JSON list of at least one object with the fields {FIELDS}")]
    NotAList(&'static str),
    /// A field's value is not accepted.
    #[error("rule {rule}: field {field}: {value} is not accepted: it takes {accepted}")]
    Field {
        /// The rule's name, or its place in the list from 1.
        rule: String,
        /// The field's name.
        field: String,
        /// The value as JSON.
        value: String,
        /// What would have been accepted.
        accepted: String,
    },
}

/// Whether a text is shaped like a rule's name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    NAME.is_match(text)
}

/// Whether a text is a tag key by which nodes can be chosen.
#[must_use]
pub fn is_tag_key(text: &str) -> bool {
    TAG_KEY.is_match(text)
}

/// Parses a rule list from its JSON text.
///
/// # Errors
/// [`RuleError`] for the first thing in it that cannot be used.
pub fn parse_rules(text: &str) -> Result<Vec<Rule>, RuleError> {
    serde_json::from_str::<UniqueKeys>(text).map_err(RuleError::Json)?;
    let list = match serde_json::from_str(text).map_err(RuleError::Json)? {
        Value::Array(list) if list.is_empty() => return Err(RuleError::NotAList("an empty list")),
        Value::Array(list) => list,
        _ => return Err(RuleError::NotAList("no list")),
    };
    let mut rules: Vec<Rule> = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let Value::Object(fields) = item else {
            return Err(RuleError::NotAList("a list with something that is no object"));
        };
        let fields = Fields::new(index, fields);
        let rule = fields.rule()?;
        if rules.iter().any(|other| other.name == rule.name) {
            return Err(fields.refuse("name", "a name that no other rule has"));
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// Glob patterns with exclusions: a text matches when a pattern takes it and no pattern with a leading `!` does.
///
/// `*` takes any characters, `/` included, `?` one, `[a-z]` one of a set. Only exclusions take everything that they do
/// not exclude.
#[derive(Clone, Debug)]
pub struct Globs {
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

impl Globs {
    fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut globs = Self {
            included: Vec::new(),
            excluded: Vec::new(),
        };
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(pattern) => globs.excluded.push(Pattern::new(pattern)?),
                None => globs.included.push(Pattern::new(pattern)?),
            }
        }
        if globs.included.is_empty() {
            globs.included.push(Pattern::new("*")?);
        }
        Ok(globs)
    }

    /// Whether the text is taken and not excluded.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let any = |globs: &[Pattern]| globs.iter().any(|glob| glob.matches(text));
        any(&self.included) && !any(&self.excluded)
    }

    /// Whether the text is taken because a pattern is this text, without a wildcard.
    #[must_use]
    pub fn names(&self, text: &str) -> bool {
        self.plain().any(|pattern| pattern == text) && self.matches(text)
    }

    fn plain(&self) -> impl Iterator<Item = &str> {
        self.included
            .iter()
            .map(Pattern::as_str)
            .filter(|pattern| is_plain(pattern))
    }

    /// The texts that are taken where every pattern is a plain text; `None` where one is a real glob, so that only a
    /// listing can tell what it takes.
    #[must_use]
    pub fn literals(&self) -> Option<Vec<&str>> {
        let literals: Vec<&str> = self.plain().collect();
        (literals.len() == self.included.len())
            .then(|| literals.into_iter().filter(|text| self.matches(text)).collect())
    }
}

fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '['])
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let included = self.included.iter().map(Pattern::to_string);
        let excluded = self.excluded.iter().map(|pattern| format!("!{pattern}"));
        f.write_str(&included.chain(excluded).collect::<Vec<_>>().join(" "))
    }
}

/// The fields of one rule as they were given, and how to refuse them.
struct Fields<'a> {
    rule: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn new(index: usize, fields: &'a Map<String, Value>) -> Self {
        let rule = match fields.get("name") {
            Some(Value::String(name)) => name.clone(),
            _ => format!("number {}", index + 1),
        };
        Self { rule, fields }
    }

    fn rule(&self) -> Result<Rule, RuleError> {
        if let Some(unknown) = self
            .fields
            .keys()
            .find(|key| !FIELDS.split(", ").any(|field| field == *key))
        {
            return Err(self.refuse(
                unknown,
                &format!("nothing, for there is no such field: the fields are {FIELDS}"),
            ));
        }
        let newest = self.whole("newest", 1, 1..=IMAGES_MAX)?;
        let keep = self.keep(newest)?;
        Ok(Rule {
            name: self.name()?,
            repositories: self.globs("repositories")?,
            tags: self.globs("tags")?,
            nodes: self.nodes()?,
            newest,
            order: self.order()?,
            keep,
            pin: self.pin(keep)?,
            max_image_gib: self.whole("maxImageGiB", 0, 0..=GIB_MAX)?,
            max_concurrency: self.rate("maxConcurrency", "50", &MAX_CONCURRENCY, "1 to 9999999 or 1% to 100%")?,
            max_errors: self.rate("maxErrors", "100%", &MAX_ERRORS, "0 to 9999999 or 0% to 100%")?,
        })
    }

    fn name(&self) -> Result<String, RuleError> {
        match self.fields.get("name") {
            Some(Value::String(name)) if NAME.is_match(name) => Ok(name.clone()),
            _ => Err(self.refuse("name", "1 to 32 lower-case letters, digits and '-'")),
        }
    }

    fn globs(&self, field: &str) -> Result<Globs, RuleError> {
        let patterns = match self.fields.get(field) {
            None => vec!["*"],
            Some(value) => strings(value)
                .filter(|patterns| !patterns.is_empty() && patterns.iter().all(|pattern| GLOB.is_match(pattern)))
                .ok_or_else(|| self.refuse(field, "a list of at least one glob, such as [\"app-*\", \"!*-debug\"]"))?,
        };
        Globs::new(patterns).map_err(|error| self.refuse(field, &format!("globs that can be read ({error})")))
    }

    fn nodes(&self) -> Result<BTreeMap<String, Vec<String>>, RuleError> {
        let accepted = format!(
            "an object of at most {MAX_NODE_TAGS} EC2 tag keys, each with 1 to {MAX_TAG_VALUES} values, such as {{\"team\": [\"ml\"]}}"
        );
        let refuse = || self.refuse("nodes", &accepted);
        let tags = match self.fields.get("nodes") {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(tags)) if tags.len() <= MAX_NODE_TAGS => tags,
            Some(_) => return Err(refuse()),
        };
        tags.iter()
            .map(|(key, values)| {
                let values = strings(values)
                    .filter(|values| (1..=MAX_TAG_VALUES).contains(&values.len()) && TAG_KEY.is_match(key))
                    .filter(|values| values.iter().all(|value| value.chars().count() <= 256))
                    .ok_or_else(refuse)?;
                Ok((key.clone(), values.into_iter().map(str::to_owned).collect()))
            })
            .collect()
    }

    fn order(&self) -> Result<Order, RuleError> {
        let order = self
            .fields
            .get("order")
            .map_or(Ok(Order::default()), Order::deserialize);
        order.map_err(|_| self.refuse("order", "\"pushed\" or \"version\""))
    }

    fn keep(&self, newest: usize) -> Result<usize, RuleError> {
        match self.whole("keep", 0, 0..=IMAGES_MAX)? {
            keep if keep > 0 && keep < newest => {
                let accepted = format!("0, or from newest, which is {newest}, to {IMAGES_MAX}");
                Err(self.refuse("keep", &accepted))
            }
            keep => Ok(keep),
        }
    }

    fn pin(&self, keep: usize) -> Result<bool, RuleError> {
        match self.fields.get("pin") {
            None | Some(Value::Bool(false)) => Ok(false),
            Some(Value::Bool(true)) if keep > 0 => Ok(true),
            _ => Err(self.refuse("pin", "false, or true where keep is 1 or more")),
        }
    }

    fn whole(&self, field: &str, default: usize, accepted: RangeInclusive<usize>) -> Result<usize, RuleError> {
        match self.fields.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| accepted.contains(number))
                .ok_or_else(|| {
                    let (min, max) = accepted.into_inner();
                    self.refuse(field, &format!("a whole number from {min} to {max}"))
                }),
        }
    }

    fn rate(&self, field: &str, default: &str, accepted: &Regex, words: &str) -> Result<String, RuleError> {
        let rate = match self.fields.get(field) {
            None => default.to_owned(),
            Some(Value::String(rate)) => rate.clone(),
            Some(rate) => rate.to_string(),
        };
        if accepted.is_match(&rate) {
            Ok(rate)
        } else {
            Err(self.refuse(field, words))
        }
    }

    fn refuse(&self, field: &str, accepted: &str) -> RuleError {
        RuleError::Field {
            rule: self.rule.clone(),
            field: field.to_owned(),
            value: self
                .fields
                .get(field)
                .map_or_else(|| "nothing".to_owned(), Value::to_string),
            accepted: accepted.to_owned(),
        }
    }
}

fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn pattern(accepted: &str) -> Regex {
    Regex::new(&format!("^(?:{accepted})$")).expect("the pattern is a constant")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        parse_rules(text).unwrap_err().to_string()
    }

    #[test]
    fn a_rule_needs_only_a_name() {
        let rules = parse_rules(r#"[{"name": "default"}]"#).unwrap();
        assert!(rules[0].wants("any/repository", "any-tag"));
        assert!(rules[0].nodes.is_empty());
        assert_eq!((rules[0].newest, rules[0].keep, rules[0].pin), (1, 0, false));
        assert_eq!(rules[0].order, Order::Pushed);
        assert_eq!(rules[0].max_image_gib, 0);
        assert_eq!(
            (rules[0].max_concurrency.as_str(), rules[0].max_errors.as_str()),
            ("50", "100%")
        );
    }

    #[test]
    fn an_unusable_field_names_rule_field_value_and_what_is_accepted() {
        let cases = [
            (
                r#"[{"name": "ok"}, {"name": "Bad"}]"#,
                "rule Bad: field name: \"Bad\" is not accepted: it takes 1 to 32",
            ),
            (
                r#"[{"tags": ["*"]}]"#,
                "rule number 1: field name: nothing is not accepted",
            ),
            (
                r#"[{"name": "a"}, {"name": "a"}]"#,
                "takes a name that no other rule has",
            ),
            (
                r#"[{"name": "a", "tags": "v*"}]"#,
                r#"rule a: field tags: "v*" is not accepted: it takes a list"#,
            ),
            (r#"[{"name": "a", "tags": []}]"#, "field tags: [] is not accepted"),
            (r#"[{"name": "a", "tags": ["[z"]}]"#, "it takes globs that can be read"),
            (
                r#"[{"name": "a", "tags": ["{v1,v2}"]}]"#,
                "field tags: [\"{v1,v2}\"] is not accepted",
            ),
            (
                r#"[{"name": "a", "nodes": {"team": ["ml"], "team": ["web"]}}]"#,
                "the key \"team\" stands twice",
            ),
            (
                r#"[{"name": "a", "nodes": {"a":["1"],"b":["1"],"c":["1"],"d":["1"],"e":["1"]}}]"#,
                "at most 4 EC2 tag keys",
            ),
            (
                r#"[{"name": "a", "nodes": {"team": "ml"}}]"#,
                "field nodes: {\"team\":\"ml\"} is not accepted",
            ),
            (r#"[{"name": "a", "newest": 0}]"#, "a whole number from 1 to 50"),
            (
                r#"[{"name": "a", "order": "semver"}]"#,
                r#"rule a: field order: "semver" is not accepted: it takes "pushed" or "version""#,
            ),
            (
                r#"[{"name": "a", "keep": 51}]"#,
                "rule a: field keep: 51 is not accepted: it takes a whole number from 0 to 50",
            ),
            (
                r#"[{"name": "a", "keep": "3"}]"#,
                "field keep: \"3\" is not accepted: it takes a whole number",
            ),
            (
                r#"[{"name": "a", "newest": 3, "keep": 2}]"#,
                "field keep: 2 is not accepted: it takes 0, or from newest, which is 3, to 50",
            ),
            (
                r#"[{"name": "a", "pin": true}]"#,
                "field pin: true is not accepted: it takes false, or true where keep is 1 or more",
            ),
            (
                r#"[{"name": "a", "keep": 1, "pin": "true"}]"#,
                "field pin: \"true\" is not accepted",
            ),
            (
                r#"[{"name": "a", "maxImageGiB": 10000}]"#,
                "field maxImageGiB: 10000 is not accepted: it takes a whole number from 0 to 9999",
            ),
            (
                r#"[{"name": "a", "maxImageGiB": 0.5}]"#,
                "field maxImageGiB: 0.5 is not accepted",
            ),
            (
                r#"[{"name": "a", "maxErrors": "101%"}]"#,
                "field maxErrors: \"101%\" is not accepted",
            ),
            (
                r#"[{"name": "a", "maxConcurrency": 0}]"#,
                "field maxConcurrency: 0 is not accepted",
            ),
            (
                r#"[{"name": "a", "repos": ["x"]}]"#,
                "field repos: [\"x\"] is not accepted: it takes nothing, for there is no such field",
            ),
            ("{}", "the rules are no list"),
            ("[]", "the rules are an empty list"),
            ("[1]", "something that is no object"),
            ("nonsense", "the rules are no JSON list"),
        ];
        for (text, expected) in cases {
            assert!(error(text).contains(expected), "{text}: {}", error(text));
        }
    }

    #[test]
    fn exclusion_wins_over_inclusion_and_only_exclusions_take_the_rest() {
        let both = Globs::new(["app-*", "!app-debug"]).unwrap();
        assert!(both.matches("app-web") && !both.matches("app-debug") && !both.matches("other"));
        let rest = Globs::new(["!*-debug"]).unwrap();
        assert!(rest.matches("app") && !rest.matches("app-debug"));
    }

    #[test]
    fn globs_are_told_with_what_they_exclude() {
        assert_eq!(
            Globs::new(["!app-debug", "app-*", "x"]).unwrap().to_string(),
            "app-* x !app-debug"
        );
        assert_eq!(Globs::new(["!x"]).unwrap().to_string(), "* !x");
    }

    #[test]
    fn only_plain_texts_can_be_told_without_a_listing() {
        assert_eq!(Globs::new(["a/b", "c", "!c"]).unwrap().literals(), Some(vec!["a/b"]));
        assert_eq!(Globs::new(["a/*"]).unwrap().literals(), None);
        assert_eq!(Globs::new(["!c"]).unwrap().literals(), None);
    }

    proptest! {
        #[test]
        fn a_repository_name_is_a_glob_that_takes_exactly_itself(name in "[a-z0-9]{1,8}(/[a-z0-9._-]{1,8}){0,3}", other in "[a-z0-9/._-]{1,20}") {
            let globs = Globs::new([name.as_str()]).unwrap();
            prop_assert!(globs.matches(&name));
            prop_assert_eq!(globs.matches(&other), other == name);
        }

        #[test]
        fn a_trailing_star_takes_every_continuation(prefix in "[a-z0-9/-]{1,10}", rest in "[a-z0-9/._-]{0,20}") {
            let globs = Globs::new([format!("{prefix}*").as_str()]).unwrap();
            let text = format!("{prefix}{rest}");
            prop_assert!(globs.matches(&text));
        }

        #[test]
        fn what_is_excluded_is_never_taken(pattern in "(\\*|[a-z?]){0,1}([a-z?]\\*?){1,3}", text in "[a-z]{1,6}") {
            let globs = Globs::new([pattern.as_str(), &format!("!{pattern}")]).unwrap();
            prop_assert!(!globs.matches(&text));
        }

        #[test]
        fn a_node_never_keeps_less_than_it_is_sent_and_pins_nothing_for_ever(
            newest in 1..=51_usize,
            keep in 0..=51_usize,
            pin: bool,
        ) {
            let text = format!(r#"[{{"name": "a", "newest": {newest}, "keep": {keep}, "pin": {pin}}}]"#);
            let usable = newest <= 50 && (keep == 0 && !pin || (newest..=50).contains(&keep));
            let parsed = parse_rules(&text).map(|rules| (rules[0].newest, rules[0].keep, rules[0].pin));
            prop_assert_eq!(parsed.ok(), usable.then_some((newest, keep, pin)));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            if let Err(error) = parse_rules(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
        }

        #[test]
        fn any_field_value_is_parsed_or_refused_by_name(
            field in prop::sample::select(FIELDS.split(", ").collect::<Vec<_>>()),
            value in prop_oneof![Just("null".to_owned()), Just("[]".to_owned()), Just("{}".to_owned()), Just("-1".to_owned()), "\"[a-z*!?]{0,5}\"", "[0-9]{1,9}".prop_map(|n| format!("{}", n.parse::<u64>().unwrap()))],
        ) {
            let text = format!("[{{\"name\": \"a\", \"{field}\": {value}}}]");
            if let Err(error) = parse_rules(&text) {
                prop_assert!(error.to_string().contains(field), "{}", error);
            }
        }
    }
}
