//! Commands: one SendCommand request for images, nodes and a reason.

use std::{collections::HashMap, fmt, str::FromStr, sync::LazyLock};

use aws_sdk_ssm::{operation::send_command::builders::SendCommandInputBuilder, types::Target};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    image::Image,
    report::word,
    rule::{Rule, is_name},
    settings::Settings,
};

/// How many instance ids one SendCommand takes (SSM service model, `InstanceIds`).
pub const MAX_INSTANCES: usize = 50;
/// How many images one command carries. The document takes 50, but SSM returns 24,000 characters of a node's report
/// (`GetCommandInvocation`), and the line of an image with the longest names takes 680.
pub const MAX_IMAGES: usize = 30;

/// The longest comment that SSM takes, in characters (SSM service model, `Comment`).
pub const MAX_COMMENT: usize = 100;

static COMMAND_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$").expect("the pattern is a constant"));

/// Whether a text is shaped like a command's id.
#[must_use]
pub fn is_command_id(text: &str) -> bool {
    COMMAND_ID.is_match(text)
}

/// What made a command necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// An image was pushed.
    Push,
    /// A node was launched.
    Launch,
    /// Somebody asked for it.
    Job,
    /// It was time.
    Schedule,
    /// A node lacked what it should have.
    Reconcile,
}

impl Trigger {
    /// Every trigger.
    const ALL: [Self; 5] = [Self::Push, Self::Launch, Self::Job, Self::Schedule, Self::Reconcile];
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&word(self))
    }
}

/// A command's comment: why it was sent, for people and for whoever reads its results.
///
/// `push rule=gpu attempt=1`, or of a further try `push rule=gpu attempt=2 job=<id of the job's first command>`. It stays
/// within [`MAX_COMMENT`] whatever the rule's name, up to the ninth attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Comment {
    /// What made the job necessary.
    pub trigger: Trigger,
    /// The rule's name.
    pub rule: String,
    /// The number of the try; the first is 1.
    pub attempt: u8,
    /// The job, where the command is not its first: the id of the command that is.
    pub job: Option<String>,
}

/// A command's comment is none of ours: somebody sent it by hand.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the comment {0:?} is not <trigger> rule=<name> attempt=<1 to 9>[ job=<command id>]")]
pub struct CommentError(String);

impl Comment {
    /// Comments on the first command of a job.
    #[must_use]
    pub fn first(trigger: Trigger, rule: &Rule) -> Self {
        Self {
            trigger,
            rule: rule.name.clone(),
            attempt: 1,
            job: None,
        }
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule={} attempt={}", self.trigger, self.rule, self.attempt)?;
        match &self.job {
            Some(job) => write!(f, " job={job}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Comment {
    type Err = CommentError;

    fn from_str(text: &str) -> Result<Self, CommentError> {
        parsed(text).ok_or_else(|| CommentError(text.to_owned()))
    }
}

fn parsed(text: &str) -> Option<Comment> {
    let mut words = text.split(' ');
    let trigger = words.next()?;
    let rule = words.next()?.strip_prefix("rule=").filter(|name| is_name(name))?;
    let attempt = words.next()?.strip_prefix("attempt=")?;
    let job = match words.next() {
        Some(word) => Some(word.strip_prefix("job=").filter(|id| is_command_id(id))?.to_owned()),
        None => None,
    };
    let comment = Comment {
        trigger: Trigger::ALL.into_iter().find(|known| known.to_string() == trigger)?,
        rule: rule.to_owned(),
        attempt: attempt.parse().ok().filter(|attempt| (1..=9).contains(attempt))?,
        job,
    };
    // What is left over, or written otherwise, such as attempt=+1, is none of ours.
    (comment.to_string() == text).then_some(comment)
}

/// The nodes a command goes to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Those that carry the tags, resolved by SSM: one call whatever their number.
    Targets(Vec<Target>),
    /// Those with these instance ids, at most [`MAX_INSTANCES`].
    Instances(Vec<String>),
}

/// Builds the request that brings images to nodes under a rule's rate control.
///
/// The newest version of the document is named, so that a version that lags behind as default is never run.
#[must_use]
pub fn send_command_input(
    settings: &Settings,
    rule: &Rule,
    comment: &Comment,
    images: &[Image],
    destination: Destination,
) -> SendCommandInputBuilder {
    let input = SendCommandInputBuilder::default()
        .document_name(&settings.document)
        .document_version("$LATEST")
        .set_parameters(Some(parameters(settings, handling(rule, comment.trigger), images)))
        .timeout_seconds(settings.delivery_timeout)
        .max_concurrency(&rule.max_concurrency)
        .max_errors(&rule.max_errors)
        .comment(comment.to_string());
    match destination {
        Destination::Targets(targets) => input.set_targets(Some(targets)),
        Destination::Instances(ids) => input.set_instance_ids(Some(ids)),
    }
}

/// How a node treats the images that it is sent; by default it takes any, removes none and pins none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handling {
    /// The compressed size above which an image is skipped, in GiB; 0 is no limit.
    pub max_image_gib: usize,
    /// How many images of a repository stay; 0 removes none.
    pub keep: usize,
    /// Whether they are exempt from kubelet's garbage collection.
    pub pin: bool,
}

/// Tells how a rule has images treated.
///
/// What somebody asks for, or has asked for at set times, need not be a repository's newest: it displaces nothing, and is not
/// pinned. Pushes, launches and reconciles tidy up.
fn handling(rule: &Rule, trigger: Trigger) -> Handling {
    let (keep, pin) = match trigger {
        Trigger::Push | Trigger::Launch | Trigger::Reconcile => (rule.keep, rule.pin),
        Trigger::Job | Trigger::Schedule => (0, false),
    };
    Handling {
        max_image_gib: rule.max_image_gib,
        keep,
        pin,
    }
}

/// The document's parameters, each with its one value.
#[must_use]
pub fn parameters(settings: &Settings, handling: Handling, images: &[Image]) -> HashMap<String, Vec<String>> {
    let images = images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    [
        ("images", images),
        ("executionTimeout", settings.execution_timeout.to_string()),
        (
            "imageGCHighThresholdPercent",
            settings.image_gc_high_threshold.to_string(),
        ),
        ("maxParallelImagePulls", settings.max_parallel_image_pulls.to_string()),
        ("maxImageGiB", handling.max_image_gib.to_string()),
        ("keep", handling.keep.to_string()),
        ("pin", handling.pin.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), vec![value]))
    .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_lite::Regex;
    use serde_json::Value;

    use super::*;
    use crate::{node::Cluster, rule::parse_rules};

    const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";

    #[test]
    fn a_comment_says_why_the_command_was_sent() {
        let first = Comment {
            trigger: Trigger::Push,
            rule: "gpu".to_owned(),
            attempt: 1,
            job: None,
        };
        assert_eq!(first.to_string(), "push rule=gpu attempt=1");
        let second = Comment {
            attempt: 2,
            job: Some(JOB.to_owned()),
            ..first
        };
        assert_eq!(second.to_string(), format!("push rule=gpu attempt=2 job={JOB}"));
    }

    #[test]
    fn what_is_no_comment_of_ours_is_refused() {
        for text in [
            "",
            "Push rule=gpu attempt=1",
            "push",
            "push rule=GPU attempt=1",
            "push rule=gpu attempt=0",
            "push rule=gpu attempt=10",
            "push rule=gpu attempt=+1",
            "push  rule=gpu attempt=1",
            "push rule=gpu attempt=1 ",
            "push rule=gpu attempt=2 job=x",
            "push rule=gpu attempt=1 job=e8d3c0e4-71f7-4491-898f-c9b35bee5f3b more",
            "prefetch trigger=push rule=gpu attempt=1",
        ] {
            assert_eq!(text.parse::<Comment>(), Err(CommentError(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn every_comment_fits_and_is_read_as_it_was_written(
            trigger in prop::sample::select(&Trigger::ALL[..]),
            rule in "[a-z0-9-]{1,32}",
            attempt in 1..=9_u8,
            job in prop::option::of(Just(JOB.to_owned())),
        ) {
            let comment = Comment { trigger, rule, attempt, job };
            let text = comment.to_string();
            prop_assert!(text.len() <= MAX_COMMENT, "{}", text);
            prop_assert_eq!(text.parse(), Ok(comment));
        }

        #[test]
        fn any_text_is_a_comment_or_refused(text in "(push|job)? ?(rule=)?.{0,8} ?(attempt=)?[0-9]{0,2}.{0,8}") {
            if let Ok(comment) = text.parse::<Comment>() {
                prop_assert_eq!(comment.to_string(), text);
            }
        }

        #[test]
        fn whatever_settings_and_rule_say_reaches_the_document_in_words_it_accepts(
            seconds in 5..=172_800,
            percent in 1..=100,
            pulls in 1..=16,
            gib in 0..=9999_usize,
            keep in 1..=50_usize,
            pin: bool,
        ) {
            let rules = format!(r#"[{{"name": "a", "maxImageGiB": {gib}, "keep": {keep}, "pin": {pin}}}]"#);
            let sent = sent(&settings(&rules, seconds, percent, pulls));
            for (name, value) in [
                ("images", IMAGE.to_owned()),
                ("executionTimeout", seconds.to_string()),
                ("imageGCHighThresholdPercent", percent.to_string()),
                ("maxParallelImagePulls", pulls.to_string()),
                ("maxImageGiB", gib.to_string()),
                ("keep", keep.to_string()),
                ("pin", pin.to_string()),
            ] {
                prop_assert_eq!(&sent[name], &[value]);
            }
            prop_assert_eq!(sent.len(), 7);
            for (name, values) in &sent {
                prop_assert!(accepted_by_the_document(name, &values[0]), "{} {}", name, values[0]);
            }
        }
    }

    #[test]
    fn a_rule_that_says_nothing_of_them_sends_no_limit_no_removal_and_no_pin() {
        let sent = sent(&settings(r#"[{"name": "a"}]"#, 3600, 85, 2));
        for (name, value) in [("maxImageGiB", "0"), ("keep", "0"), ("pin", "false")] {
            assert_eq!(sent[name], [value]);
            assert!(accepted_by_the_document(name, value));
        }
    }

    fn accepted_by_the_document(name: &str, value: &str) -> bool {
        let document: Value = serde_json::from_str(include_str!("../../ssm/document.json")).unwrap();
        let pattern = document["parameters"][name]["allowedPattern"].as_str().unwrap();
        Regex::new(pattern).unwrap().is_match(value)
    }

    fn sent(settings: &Settings) -> HashMap<String, Vec<String>> {
        let images = [IMAGE.parse().unwrap()];
        let nodes = Destination::Instances(vec!["i-0123456789abcdef0".to_owned()]);
        let rule = &settings.rules[0];
        let input = send_command_input(settings, rule, &Comment::first(Trigger::Push, rule), &images, nodes);
        input.get_parameters().clone().unwrap()
    }

    #[test]
    fn what_somebody_asks_for_displaces_nothing_and_is_not_pinned() {
        let settings = settings(r#"[{"name": "a", "keep": 3, "pin": true}]"#, 600, 85, 2);
        let rule = &settings.rules[0];
        for (trigger, keep, pin) in [
            (Trigger::Push, "3", "true"),
            (Trigger::Launch, "3", "true"),
            (Trigger::Reconcile, "3", "true"),
            (Trigger::Job, "0", "false"),
            (Trigger::Schedule, "0", "false"),
        ] {
            let sent = parameters(&settings, handling(rule, trigger), &[IMAGE.parse().unwrap()]);
            assert_eq!(
                (sent["keep"][0].as_str(), sent["pin"][0].as_str()),
                (keep, pin),
                "{trigger}"
            );
        }
    }

    fn settings(rules: &str, seconds: i32, percent: i32, pulls: i32) -> Settings {
        Settings {
            cluster: Cluster {
                name: "prod".to_owned(),
                tag_key: "aws:eks:cluster-name".to_owned(),
            },
            document: "prefetch-images".to_owned(),
            rules: parse_rules(rules).unwrap(),
            delivery_timeout: 600,
            execution_timeout: seconds,
            image_gc_high_threshold: percent,
            max_parallel_image_pulls: pulls,
        }
    }
}
