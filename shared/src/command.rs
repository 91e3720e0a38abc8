//! Commands: images for nodes, and a reason.

use std::{collections::HashMap, fmt, str::FromStr, sync::LazyLock};

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    image::Image,
    node::NodeSelector,
    report::word,
    rule::{Rule, is_name},
    settings::Settings,
};

/// How many instance ids one SendCommand takes (SSM service model, `InstanceIds`).
pub const MAX_INSTANCES: usize = 50;
/// How many images one command carries. The document takes 50, but SSM returns 24,000 characters of a node's report
/// (`GetCommandInvocation`), and the line of an image with the longest names takes 680.
pub const MAX_IMAGES: usize = 30;
/// How many bytes the images of one command take, with the spaces between them: as many as have the longest names. SSM counts
/// the parameters of a run with the document (SSM service model, CreateDocument), both below 64 KB.
pub const MAX_IMAGES_BYTES: usize = 24_576;

/// The longest comment that SSM takes, in characters (SSM service model, `Comment`).
pub const MAX_COMMENT: usize = 100;

static COMMAND_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$").expect("the pattern is a constant"));

/// Whether a text is shaped like a command's id.
#[must_use]
pub fn is_command_id(text: &str) -> bool {
    COMMAND_ID.is_match(text)
}

/// The version that the id of a job has as a UUID where nothing was sent: the one that is free for anybody's own use (RFC
/// 9562). SSM's own ids are of version 4, in all that AWS documents of them.
const UNSENT_VERSION: char = '8';

/// Makes the id of a job of which nothing was sent out of texts: a UUID, which is the same from release to release.
#[must_use]
pub fn unsent_id(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let hex = hash
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!(
        "{}-{}-{UNSENT_VERSION}{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18],
        &hex[18..30]
    )
}

/// Returns true for the id of a job of which nothing was sent: SSM gives none like it.
#[must_use]
pub fn is_unsent_id(text: &str) -> bool {
    is_command_id(text) && text.chars().nth(14) == Some(UNSENT_VERSION)
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
    /// A node booted; no command is sent for it.
    Boot,
}

impl Trigger {
    /// Every trigger.
    const ALL: [Self; 6] = [
        Self::Push,
        Self::Launch,
        Self::Job,
        Self::Schedule,
        Self::Reconcile,
        Self::Boot,
    ];
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Destination {
    /// Those that carry the tags, resolved by SSM: one call whatever their number.
    #[serde(rename = "tags")]
    Selected(NodeSelector),
    /// Those with these instance ids, at most [`MAX_INSTANCES`].
    #[serde(rename = "ids")]
    Instances(Vec<String>),
}

impl Destination {
    /// The instance ids, where the nodes are named by them.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        match self {
            Self::Selected(_) => &[],
            Self::Instances(ids) => ids,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selected(selector) => {
                f.write_str("nodes with the tags ")?;
                for (place, (key, values)) in selector.tags().iter().enumerate() {
                    let comma = if place > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}={}", values.join("|"))?;
                }
                Ok(())
            }
            Self::Instances(ids) => write!(f, "the nodes {}", ids.join(", ")),
        }
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
    /// Whether the node is one that starts, which has its network to itself.
    pub is_starting: bool,
}

/// Cuts images into those of one command each, in their order: as many as fit by number and by bytes, and at least one.
pub fn images_of_commands(images: &[Image]) -> impl Iterator<Item = &[Image]> {
    let mut rest = images;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(MAX_IMAGES).take_while(|image| {
            bytes += image.to_string().len() + usize::from(bytes > 0);
            bytes <= MAX_IMAGES_BYTES
        });
        let (of_command, left) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = left;
        (!of_command.is_empty()).then_some(of_command)
    })
}

/// The document's parameters, each with its one value.
#[must_use]
pub fn parameters(settings: &Settings, handling: Handling, images: &[Image]) -> HashMap<String, Vec<String>> {
    let connections = if handling.is_starting {
        settings.launch_max_connections
    } else {
        settings.max_connections
    };
    [
        ("images", images_text(images)),
        ("executionTimeout", settings.execution_timeout.to_string()),
        (
            "imageGCHighThresholdPercent",
            settings.image_gc_high_threshold.to_string(),
        ),
        ("maxParallelImagePulls", settings.max_parallel_image_pulls.to_string()),
        ("maxConnections", connections.to_string()),
        ("maxBandwidthMiB", settings.max_bandwidth_mib.to_string()),
        ("maxImageGiB", handling.max_image_gib.to_string()),
        ("keep", handling.keep.to_string()),
        ("pin", handling.pin.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), vec![value]))
    .into()
}

/// The images as the document takes them.
#[must_use]
pub fn images_text(images: &[Image]) -> String {
    images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{node::Cluster, settings::Mode};

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const LONGEST_REGISTRY: &str = "123456789012.dkr-ecr-fips.ap-southeast-99.on.amazonwebservices.com.cn";
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

    /// Whoever lets the document grow leaves less to the images of a command.
    #[test]
    fn the_document_and_the_largest_parameters_are_within_what_ssm_takes() {
        const MAX_BYTES: usize = 65_536;
        let written = include_str!("../../ssm/prefetch-images.json");
        let document: serde_json::Value = serde_json::from_str(written).unwrap();
        // CloudFormation writes it anew, and does not say how.
        let indented = serde_json::to_string_pretty(&document).unwrap();
        let document = written.len().max(indented.len());
        let settings = Settings {
            mode: Mode::Observe,
            cluster: Cluster {
                name: "prod".to_owned(),
                tag_key: "aws:eks:cluster-name".to_owned(),
            },
            document: "prefetch-images".to_owned(),
            rules: Vec::new(),
            registry_endpoint: crate::image::RegistryEndpoint::Standard,
            delivery_timeout: 2_592_000,
            execution_timeout: 172_800,
            image_gc_high_threshold: 100,
            max_parallel_image_pulls: 16,
            max_connections: 20,
            launch_max_connections: 20,
            max_bandwidth_mib: 9999,
        };
        let handling = Handling {
            max_image_gib: 9999,
            keep: 50,
            pin: false,
            is_starting: false,
        };
        let parameters = serde_json::to_string(&parameters(&settings, handling, &[])).unwrap();
        let bytes = document + parameters.len() + MAX_IMAGES_BYTES;
        assert!(bytes <= MAX_BYTES, "{bytes} of {MAX_BYTES}");
    }

    #[test]
    fn a_command_takes_as_many_images_with_the_longest_names_as_with_the_shortest() {
        let registry = format!("{}.example:65535", "r".repeat(240));
        let longest = Image::new(&registry, &"a".repeat(255), Some(&"t".repeat(128)), DIGEST).unwrap();
        let of_many = vec![longest; 2 * MAX_IMAGES + 1];
        assert_eq!(
            images_of_commands(&of_many).map(<[Image]>::len).collect::<Vec<_>>(),
            [MAX_IMAGES, MAX_IMAGES, 1]
        );
        assert_eq!(images_of_commands(&[]).count(), 0);
    }

    #[test]
    fn the_id_of_an_observed_job_is_none_of_ssms() {
        assert!(is_unsent_id("e8d3c0e4-71f7-8491-898f-c9b35bee5f3b"));
        for id in [JOB, "e8d3c0e4-71f7-8491-898f-c9b35bee5f3", "8", ""] {
            assert!(!is_unsent_id(id), "{id}");
        }
    }

    #[test]
    fn a_destination_is_told_by_its_tags_or_ids() {
        let cluster = crate::node::Cluster {
            name: "prod".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        };
        let tags = [("team".to_owned(), vec!["ml".to_owned(), "ai".to_owned()])].into();
        for (destination, text, json) in [
            (
                Destination::Selected(NodeSelector::of_tags(&cluster, tags)),
                "nodes with the tags aws:eks:cluster-name=prod, team=ml|ai",
                r#"{"tags":{"aws:eks:cluster-name":["prod"],"team":["ml","ai"]}}"#,
            ),
            (
                Destination::Instances(vec!["i-1".to_owned(), "i-2".to_owned()]),
                "the nodes i-1, i-2",
                r#"{"ids":["i-1","i-2"]}"#,
            ),
        ] {
            assert_eq!(destination.to_string(), text);
            assert_eq!(serde_json::to_string(&destination).unwrap(), json);
        }
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
        fn every_command_fits_and_no_image_is_lost_or_moved(
            names in prop::collection::vec(("[a-z]{1,255}", prop::option::of("[a-z]{1,128}")), 0..40),
        ) {
            let image = |(repository, tag): &(String, Option<String>)| {
                Image::new(LONGEST_REGISTRY, repository, tag.as_deref(), DIGEST).unwrap()
            };
            let images: Vec<Image> = names.iter().map(image).collect();
            let cut: Vec<&[Image]> = images_of_commands(&images).collect();
            prop_assert_eq!(&cut.concat(), &images);
            for images in &cut {
                prop_assert!((1..=MAX_IMAGES).contains(&images.len()));
                prop_assert!(images_text(images).len() <= MAX_IMAGES_BYTES);
            }
            for both in cut.windows(2) {
                let more = [both[0], &both[1][..1]].concat();
                prop_assert!(more.len() > MAX_IMAGES || images_text(&more).len() > MAX_IMAGES_BYTES);
            }
        }

        #[test]
        fn any_text_is_a_comment_or_refused(text in "(push|job)? ?(rule=)?.{0,8} ?(attempt=)?[0-9]{0,2}.{0,8}") {
            if let Ok(comment) = text.parse::<Comment>() {
                prop_assert_eq!(comment.to_string(), text);
            }
        }
    }
}
