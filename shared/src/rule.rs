//! Rules: which images go to which nodes.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, sync::LazyLock};

use glob::{Pattern, PatternError};
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::unique_keys::UniqueKeys;

/// The most images of one repository that a rule may ask for, or let a node keep; the document keeps no more either.
pub const IMAGES_MAX: usize = 50;
/// Limits how many tag keys a rule may name: SSM takes 5 targets, ANDed, and one is the cluster's (SSM service model,
/// `Targets`).
pub const MAX_NODE_TAGS: usize = 4;
/// Limits how many values of one tag key a rule may accept (SSM service model, `TargetValues`).
pub const MAX_TAG_VALUES: usize = 50;
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
/// Names what repositories and tags are made of, and what globs add; anything else could match nothing.
static GLOB: LazyLock<Regex> = LazyLock::new(|| pattern(r"!?[A-Za-z0-9._/*?\[\]!-]+"));

/// Tells which of two images is the newer one.
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
    /// Tells how many newest images per repository a new node gets.
    pub newest: usize,
    /// Tells which images are newest.
    pub order: Order,
    /// Tells how many newest images per repository, of those that were prefetched, stay on a node: none is removed where it
    /// is 0, and it is never less than `newest` otherwise.
    pub keep: usize,
    /// Tells whether prefetched images are exempt from kubelet's garbage collection while they are kept.
    pub pin: bool,
    /// The compressed size above which an image is skipped, in GiB; 0 is no limit.
    pub max_image_gib: usize,
    /// Tells on how many nodes a command runs at once: a number or a percentage.
    pub max_concurrency: String,
    /// Tells after how many failing nodes a command is sent to no further ones: a number or a percentage.
    pub max_errors: String,
}

impl Rule {
    /// Returns true where the rule brings this image of this repository.
    #[must_use]
    pub fn wants(&self, repository: &str, tag: &str) -> bool {
        self.repositories.matches(repository) && self.tags.matches(tag)
    }

    /// Returns how many images of a repository a node may hold by what a launch or a reconcile names: the newest, and one
    /// for each tag that the rule names literally.
    #[must_use]
    pub fn most_named(&self) -> usize {
        self.newest + self.tags.plain().count()
    }

    /// Returns how many images of a repository the rule names beside those that were pushed last: one for each tag that it
    /// names literally, and the newest where those are the highest versions.
    #[must_use]
    pub fn most_beside_pushes(&self) -> usize {
        match self.order {
            Order::Pushed => self.tags.plain().count(),
            Order::Version => self.most_named(),
        }
    }
}

/// Tells why a rule list cannot be used; the message names the rule, the field, the value and what is accepted.
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
        /// Says what would have been accepted.
        accepted: String,
    },
}

/// Returns true where a text is shaped like a rule's name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    NAME.is_match(text)
}

/// Returns true where a text is a tag key by which nodes can be chosen.
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

    /// Returns true where the text is taken and not excluded.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let any = |globs: &[Pattern]| globs.iter().any(|glob| glob.matches(text));
        any(&self.included) && !any(&self.excluded)
    }

    /// Returns true where the text is taken because a pattern is this text, without a wildcard.
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

    /// Returns the texts that are taken where every pattern is a plain text; `None` where one is a real glob, so that only
    /// a listing can tell what it takes.
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
mod tests;
