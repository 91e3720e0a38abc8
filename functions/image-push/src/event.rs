//! ECR events: each tells an image that arrived, or why there is none.

use prefetch::{
    event::Event,
    image::{Kind, check_name, not_an_image_tag},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

const IMAGE: &str = "ECR Image Action";
const REPLICATION: &str = "ECR Replication Action";
const PULL_THROUGH_CACHE: &str = "ECR Pull Through Cache Action";
/// Names the action by which an image comes out of ECR's archive, or goes there.
const STORAGE_CLASS: &str = "UPDATE_STORAGE_CLASS";

/// Tells why an event brings nothing to any node.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The reason as one word, stable for those who count it.
    pub reason: IgnoredReason,
    /// The reason as a sentence.
    pub message: String,
}

/// The reasons for which an event is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IgnoredReason {
    /// The payload is no event, or a field is missing or unusable.
    Malformed,
    /// The event is none of ECR's that name an image that arrived.
    NotAnImageEvent,
    /// The action is not one by which an image arrives, such as a delete.
    NotAPush,
    /// The action failed.
    NotSuccessful,
    /// The image has no tag: a child of an index, or pushed by digest.
    Untagged,
    /// A signature, attestation, SBOM, chart, build cache or other artifact that no node can run.
    NotAnImage,
    /// It is told of a registry that is neither this account's in this Region nor one that the stack names.
    ForeignRegistry,
    /// ECR has the image no more, or in its archive.
    Gone,
    /// No rule wants the image.
    NoRule,
    /// The nodes of the rules that want it run no image of its repository, nor lately ran one.
    NotUsed,
}

impl Ignored {
    pub fn new(reason: IgnoredReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// An image that arrived in ECR.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The registry's account.
    pub account: String,
    /// The registry's Region.
    pub region: String,
    /// The repository.
    pub repository: String,
    /// The digest.
    pub digest: String,
    /// The tag by which it arrived; one that was restored is told of by its digest alone.
    pub tag: Option<String>,
    /// The kind by the event's media types, where it has some.
    pub kind: Kind,
}

/// The fields of ECR's image events; each kind has some of them.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Detail {
    repository_name: Option<String>,
    image_digest: Option<String>,
    image_tag: Option<String>,
    action_type: Option<String>,
    target_storage_class: Option<String>,
    result: Option<String>,
    sync_status: Option<String>,
    manifest_media_type: Option<String>,
    artifact_media_type: Option<String>,
}

impl Arrival {
    /// Reads the image out of an event by which one arrived in ECR: a push, a replication, a pull through the cache, or a
    /// return from the archive.
    ///
    /// # Errors
    /// [`Ignored`], with its reason, for everything else.
    pub fn read(payload: Value) -> Result<Self, Ignored> {
        let event: Event = parsed(payload)?;
        let detail: Detail = detail_of_image_event(&event)?;
        check_arrival(&event.detail_type, &detail)?;
        let tag = if is_restored(&detail) {
            None
        } else {
            Some(tag(&detail)?)
        };
        let kind = Kind::of(
            detail.manifest_media_type.as_deref(),
            detail.artifact_media_type.as_deref(),
        );
        if let Kind::Other(message) = kind {
            return Err(Ignored::new(IgnoredReason::NotAnImage, message));
        }
        let repository = required("repository-name", detail.repository_name.as_deref())?;
        let digest = required("image-digest", detail.image_digest.as_deref())?;
        check_name(repository, tag, Some(digest))
            .map_err(|error| Ignored::new(IgnoredReason::Malformed, error.to_string()))?;
        Ok(Self {
            account: required("account", event.account.as_deref())?.to_owned(),
            region: required("region", event.region.as_deref())?.to_owned(),
            repository: repository.to_owned(),
            digest: digest.to_owned(),
            tag: tag.map(str::to_owned),
            kind,
        })
    }
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, Ignored> {
    serde_json::from_value(value).map_err(|error| Ignored::new(IgnoredReason::Malformed, error.to_string()))
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, Ignored> {
    value.ok_or_else(|| Ignored::new(IgnoredReason::Malformed, format!("the field {field} is missing")))
}

fn detail_of_image_event(event: &Event) -> Result<Detail, Ignored> {
    let (source, detail_type) = (event.source.as_str(), event.detail_type.as_str());
    if source == "aws.ecr" && [IMAGE, REPLICATION, PULL_THROUGH_CACHE].contains(&detail_type) {
        parsed(event.detail.clone())
    } else {
        let message = format!("{detail_type:?} from {source:?} is no event by which an image arrives in ECR");
        Err(Ignored::new(IgnoredReason::NotAnImageEvent, message))
    }
}

fn is_restored(detail: &Detail) -> bool {
    detail.action_type.as_deref() == Some(STORAGE_CLASS)
}

fn check_arrival(detail_type: &str, detail: &Detail) -> Result<(), Ignored> {
    let (action, outcome) = match detail_type {
        IMAGE if is_restored(detail) => (Some(STORAGE_CLASS), &detail.result),
        IMAGE => (Some("PUSH"), &detail.result),
        REPLICATION => (Some("REPLICATE"), &detail.result),
        _ => (None, &detail.sync_status),
    };
    if let Some(action) = action
        && detail.action_type.as_deref() != Some(action)
    {
        let message = format!(
            "the action is {:?}, not {action}",
            detail.action_type.as_deref().unwrap_or_default()
        );
        return Err(Ignored::new(IgnoredReason::NotAPush, message));
    }
    let class = detail.target_storage_class.as_deref().unwrap_or_default();
    if is_restored(detail) && class != "STANDARD" {
        let message = format!("the image's storage class becomes {class:?}, not STANDARD");
        return Err(Ignored::new(IgnoredReason::NotAPush, message));
    }
    if outcome.as_deref() != Some("SUCCESS") {
        let message = format!(
            "the result is {:?}, not SUCCESS",
            outcome.as_deref().unwrap_or_default()
        );
        return Err(Ignored::new(IgnoredReason::NotSuccessful, message));
    }
    Ok(())
}

fn tag(detail: &Detail) -> Result<&str, Ignored> {
    let Some(tag) = detail.image_tag.as_deref().filter(|tag| !tag.is_empty()) else {
        return Err(Ignored::new(
            IgnoredReason::Untagged,
            "the image has no tag: a child of an index, or pushed by digest",
        ));
    };
    match not_an_image_tag(tag) {
        Some(message) => Err(Ignored::new(IgnoredReason::NotAnImage, message)),
        None => Ok(tag),
    }
}
