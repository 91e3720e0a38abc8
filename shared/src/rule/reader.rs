//! Reads rules, and refuses what cannot be used.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::LazyLock};

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    globs::Globs,
    model::{IMAGES_MAX, MAX_NODE_TAGS, MAX_TAG_VALUES, Order, Rule},
};
use crate::{
    fields::{FieldError, Fields},
    requested_image::RequestedImage,
    unique_keys::UniqueKeys,
};

/// The largest limit on an image's size that the document takes.
const GIB_MAX: usize = 9999;
/// Limits how many images a rule names itself: as many as one command carries.
const NAMED_MAX: usize = 30;
/// The longest value of an EC2 tag, in characters (EC2 user guide, tag restrictions).
const TAG_VALUE_MAX: usize = 256;

pub(super) const FIELDS: [&str; 15] = [
    "name",
    "repositories",
    "tags",
    "used",
    "neighbours",
    "registries",
    "images",
    "nodes",
    "newest",
    "order",
    "keep",
    "pin",
    "maxImageGiB",
    "maxConcurrency",
    "maxErrors",
];

static NAME: LazyLock<Regex> = LazyLock::new(|| pattern("[a-z0-9-]{1,32}"));
/// SSM's own pattern and length for rate control (SSM service model, `MaxConcurrency`).
static MAX_CONCURRENCY: LazyLock<Regex> = LazyLock::new(|| pattern("[1-9][0-9]{0,6}|[1-9][0-9]?%|100%"));
const CONCURRENCY: &str = "1 to 9999999 or 1% to 100%";
/// SSM's own pattern and length for rate control (SSM service model, `MaxErrors`).
static MAX_ERRORS: LazyLock<Regex> = LazyLock::new(|| pattern("0|[1-9][0-9]{0,6}|[0-9]%|[1-9][0-9]%|100%"));
const ERRORS: &str = "0 to 9999999 or 0% to 100%";
/// The ASCII characters of SSM's `TargetKey`, less `tag:` (SSM service model).
static TAG_KEY: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9 _.:/=@-]{1,128}"));
/// Repositories and tags are made of these, and globs of some more; anything else could match nothing.
static GLOB: LazyLock<Regex> = LazyLock::new(|| pattern(r"!?[A-Za-z0-9._/*?\[\]!-]+"));
const GLOBS: &str = r#"a list of at least one glob, such as ["app-*", "!*-debug"]"#;
/// The hosts of registries are made of these, with a port where they have one; what has a path or a scheme could match none.
static HOST_GLOB: LazyLock<Regex> = LazyLock::new(|| pattern(r"!?[a-z0-9.:*?\[\]!-]+"));
const HOST_GLOBS: &str = r#"a list of at least one glob over host names, such as ["*.example.com:5000", "!docker.io"]"#;

/// Tells why a rule list cannot be used; the message names the rule, the field, the value and what is accepted.
#[derive(Debug, Error)]
pub enum RuleError {
    /// The text is not JSON.
    #[error("the rules are no JSON list: {0}")]
    Json(#[source] serde_json::Error),
    /// The JSON is not a list of at least one object.
    #[error("the rules are {0}: accepted is a JSON list of at least one object with the fields {fields}", fields = FIELDS.join(", "))]
    NotAList(&'static str),
    /// A field's value is not accepted.
    #[error("rule {rule}: field {refused}")]
    Field {
        /// The rule's name, or its place in the list from 1.
        rule: String,
        /// The field, its value, and what would have been accepted.
        refused: Box<FieldError>,
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
    for (place, item) in (1..).zip(list) {
        let Value::Object(fields) = item else {
            return Err(RuleError::NotAList("a list with something that is no object"));
        };
        let name = fields.get("name").and_then(Value::as_str);
        let named = name.map_or_else(|| format!("number {place}"), str::to_owned);
        let is_known = |name: &str| rules.iter().any(|other| other.name == name);
        let rule = rule(&fields, is_known).map_err(|refused| RuleError::Field {
            rule: named,
            refused: Box::new(refused),
        })?;
        rules.push(rule);
    }
    Ok(rules)
}

/// Reads a rule; the error is of a field that there is not, else of the first that is not accepted, with its whole value.
fn rule(given: &Map<String, Value>, is_known: impl Fn(&str) -> bool) -> Result<Rule, FieldError> {
    if let Some((name, value)) = given.iter().find(|(name, _)| !FIELDS.contains(&name.as_str())) {
        return Err(FieldError::unknown(name, value.clone(), &FIELDS));
    }
    let mut reader = Fields::new(given.clone());
    let fields = &mut reader;
    let newest = whole(fields, "newest", 1, 1..=IMAGES_MAX);
    let keep = keep(fields, newest);
    let rule = Rule {
        name: name(fields, is_known),
        repositories: globs(fields, "repositories", &GLOB, GLOBS),
        tags: globs(fields, "tags", &GLOB, GLOBS),
        used: switch(fields, "used"),
        neighbours: switch(fields, "neighbours"),
        registries: globs(fields, "registries", &HOST_GLOB, HOST_GLOBS),
        images: images(fields),
        nodes: nodes(fields),
        newest,
        order: order(fields),
        keep,
        pin: pin(fields, keep),
        max_image_gib: whole(fields, "maxImageGiB", 0, 0..=GIB_MAX),
        max_concurrency: rate(fields, "maxConcurrency", "50", &MAX_CONCURRENCY, CONCURRENCY),
        max_errors: rate(fields, "maxErrors", "100%", &MAX_ERRORS, ERRORS),
    };
    reader.finish(&FIELDS).map(|()| rule).map_err(|mut refused| {
        let refused = refused.swap_remove(0);
        let value = given.get(&refused.field).cloned();
        FieldError { value, ..refused }
    })
}

fn name(fields: &mut Fields, is_known: impl Fn(&str) -> bool) -> String {
    let accepted = match fields.get("name").and_then(Value::as_str) {
        Some(name) if !NAME.is_match(name) => "1 to 32 lower-case letters, digits and '-'",
        Some(name) if is_known(name) => "a name that no other rule has",
        Some(name) => return name.to_owned(),
        None => "1 to 32 lower-case letters, digits and '-'",
    };
    fields.refuse("name", fields.get("name").cloned(), accepted);
    String::new()
}

fn globs(fields: &mut Fields, name: &str, grammar: &Regex, accepted: &str) -> Globs {
    fields.read(name, Globs::default(), |value| {
        let patterns = strings(value)
            .filter(|patterns| !patterns.is_empty() && patterns.iter().all(|pattern| grammar.is_match(pattern)))
            .ok_or(accepted)?;
        Globs::new(patterns).map_err(|error| format!("globs that can be read ({error})"))
    })
}

/// Reads a field that is true where it is not there.
fn switch(fields: &mut Fields, name: &str) -> bool {
    fields.read(name, true, |value| {
        value.as_bool().ok_or_else(|| "true or false".to_owned())
    })
}

fn images(fields: &mut Fields) -> Vec<String> {
    fields.read("images", Vec::new(), |value| {
        let images = strings(value)
            .filter(|images| images.len() <= NAMED_MAX)
            .ok_or_else(|| format!("a list of at most {NAMED_MAX} images"))?;
        for (place, image) in images.iter().enumerate() {
            // Which registry is this account's decides nothing of whether it can be read.
            RequestedImage::parse(image, "").map_err(|accepted| format!("in the place of {image:?} {accepted}"))?;
            if images[..place].contains(image) {
                return Err(format!("each image once: {image} is there twice"));
            }
        }
        Ok(images.into_iter().map(str::to_owned).collect())
    })
}

fn nodes(fields: &mut Fields) -> BTreeMap<String, Vec<String>> {
    fields.read("nodes", BTreeMap::new(), |value| {
        let tags = value.as_object().filter(|tags| tags.len() <= MAX_NODE_TAGS);
        let values_of = |(key, values): (&String, &Value)| {
            let values = strings(values).filter(|values| (1..=MAX_TAG_VALUES).contains(&values.len()))?;
            let is_tag = TAG_KEY.is_match(key) && values.iter().all(|value| value.chars().count() <= TAG_VALUE_MAX);
            is_tag.then(|| (key.clone(), values.into_iter().map(str::to_owned).collect()))
        };
        tags.and_then(|tags| tags.iter().map(values_of).collect::<Option<_>>())
            .ok_or_else(|| format!("an object of at most {MAX_NODE_TAGS} EC2 tag keys, each with 1 to {MAX_TAG_VALUES} values, such as {{\"team\": [\"ml\"]}}"))
    })
}

fn order(fields: &mut Fields) -> Order {
    let accepted = "\"pushed\" or \"version\"";
    fields.read("order", Order::default(), |value| {
        Order::deserialize(value).map_err(|_| accepted.to_owned())
    })
}

fn keep(fields: &mut Fields, newest: usize) -> usize {
    let keep = whole(fields, "keep", 0, 0..=IMAGES_MAX);
    if (1..newest).contains(&keep) {
        let accepted = format!("0, or from newest, which is {newest}, to {IMAGES_MAX}");
        fields.refuse("keep", Some(keep.into()), accepted);
    }
    keep
}

fn pin(fields: &mut Fields, keep: usize) -> bool {
    fields.read("pin", false, |value| match value {
        Value::Bool(pin) if !pin || keep > 0 => Ok(*pin),
        _ => Err("false, or true where keep is 1 or more".to_owned()),
    })
}

fn whole(fields: &mut Fields, name: &str, default: usize, accepted: RangeInclusive<usize>) -> usize {
    fields.read(name, default, |value| {
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        let (min, max) = (accepted.start(), accepted.end());
        number
            .filter(|number| accepted.contains(number))
            .ok_or_else(|| format!("a whole number from {min} to {max}"))
    })
}

fn rate(fields: &mut Fields, name: &str, default: &str, accepted: &Regex, words: &str) -> String {
    fields.read(name, default.to_owned(), |value| {
        let rate = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        accepted.is_match(&rate).then_some(rate).ok_or_else(|| words.to_owned())
    })
}

fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn pattern(accepted: &str) -> Regex {
    Regex::new(&format!("^(?:{accepted})$")).expect("the pattern is a constant")
}
