//! Commands: images for nodes, and a reason.

use std::{collections::HashMap, fmt, str::FromStr, sync::LazyLock};

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    error_text::word,
    image::Image,
    node::NodeSelector,
    rule::{Rule, is_name},
    settings::Settings,
};

/// Limits how many instance ids one SendCommand takes (SSM service model, `InstanceIds`).
pub const MAX_INSTANCES: usize = 50;
/// Limits how many images one command carries. The document takes 50, but SSM returns 24,000 characters of a node's report
/// (`GetCommandInvocation`), and the line of an image with the longest names takes 680.
pub const MAX_IMAGES: usize = 30;
/// Limits how many bytes the images of one command take, with the spaces between them: as many as have the longest names.
/// SSM counts the parameters of a run with the document (SSM service model, CreateDocument), both below 64 KB.
pub const MAX_IMAGES_BYTES: usize = 24_576;

/// The longest comment that SSM takes, in characters (SSM service model, `Comment`).
pub const MAX_COMMENT: usize = 100;

static COMMAND_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$").expect("the pattern is a constant"));

/// Returns true where a text is shaped like a command's id.
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

/// Holds what made a command necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// An image was pushed.
    Push,
    /// A node was launched.
    Launch,
    /// A node was launched, and its neighbours run images that are none of its rule's.
    Neighbours,
    /// Somebody asked for it.
    Job,
    /// It was time.
    Schedule,
    /// A node lacked what it should have.
    Reconcile,
    /// A node booted; no command is sent for it.
    Boot,
    /// Nodes are to say what they run; the command names no image and is no job.
    Inventory,
}

impl Trigger {
    /// Returns true where a node that lacks an image all the same lacks nothing of its rule's: only a pod's own login may
    /// reach it, or it may be gone from its registry.
    #[must_use]
    pub fn is_best_effort(self) -> bool {
        self == Self::Neighbours
    }

    /// Returns true where the command is of a node's launch.
    #[must_use]
    pub fn is_of_launch(self) -> bool {
        matches!(self, Self::Launch | Self::Neighbours)
    }

    /// Every trigger.
    const ALL: [Self; 8] = [
        Self::Push,
        Self::Launch,
        Self::Neighbours,
        Self::Job,
        Self::Schedule,
        Self::Reconcile,
        Self::Boot,
        Self::Inventory,
    ];
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&word(self))
    }
}

/// A command's comment: why it was sent, for people and for whoever reads its results.
///
/// `push rule=gpu attempt=1`, or of a retry `push rule=gpu attempt=2 job=<id of the job's first command>`. It stays
/// within [`MAX_COMMENT`] whatever the rule's name, up to the ninth attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Comment {
    /// Says what made the job necessary.
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
    /// Returns the instance ids, where the nodes are named by them.
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

/// Tells how a node treats the images that it is sent; by default it takes any, removes none and pins none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handling {
    /// The compressed size above which an image is skipped, in GiB; 0 is no limit.
    pub max_image_gib: usize,
    /// Tells how many images of a repository stay; 0 removes none.
    pub keep: usize,
    /// Tells whether they are exempt from kubelet's garbage collection.
    pub pin: bool,
    /// Tells whether the node is one that starts, which has its network to itself.
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

/// Returns the document's parameters, each with its one value.
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

/// Returns the images as the document takes them.
#[must_use]
pub fn images_text(images: &[Image]) -> String {
    images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
