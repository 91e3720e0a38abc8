//! Images of ours: those that our pulls made, under the names that we gave them.
//!
//! A name carries a label with the moment of the pull. Whoever pulls by a name writes it anew without that label, as a pod with
//! `imagePullPolicy: Always` makes containerd do. So the manifest's blob carries it too, which a pull leaves as it is: one label
//! for each name, with the moment when that name was made, by which it is told from a later one of somebody else's.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use prefetch::image::Image;
use tonic::Status;

use super::labels::{PINNED, PULLED_AT, is_pinned_for};
use crate::containerd::{Containerd, images::Name, inventory::Inventory};

/// An image that a pull of ours made, in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// The repository with its registry: `registry/repository`.
    pub repository: String,
    /// `sha256:…`
    pub digest: String,
    /// The moment of its pull (RFC 3339, to the microsecond): as texts, earlier ones are smaller.
    pub pulled_at: String,
    /// The names of ours that it has in the repository, sorted.
    pub names: Vec<String>,
    /// True where it is pinned for this repository.
    pub is_pinned: bool,
}

/// Returns all that is ours, sorted by repository and then by the moment of the pull, the newest first.
#[must_use]
pub fn ours(inventory: &Inventory) -> Vec<Ours> {
    let names = inventory.names.values();
    let mut all: Vec<_> = names.filter_map(|name| of_name(inventory, name)).collect();
    all.sort_unstable_by(|a, b| {
        (&a.repository, &b.pulled_at, &a.digest).cmp(&(&b.repository, &a.pulled_at, &b.digest))
    });
    all
}

/// Returns what is ours by a name by digest.
///
/// Names by tag are ours by the same source as that one: a person who gives an image another name copies its labels.
fn of_name(inventory: &Inventory, name: &Name) -> Option<Ours> {
    let digest = &name.target.digest;
    let repository = name.name.strip_suffix(digest.as_str())?.strip_suffix('@')?;
    let record = recorded(inventory, name);
    let pulled_at = record.or_else(|| labelled(name))?;
    let is_ours = |other: &&Name| {
        let source = if record.is_some() {
            recorded(inventory, other)
        } else {
            labelled(other)
        };
        source.is_some() && other.target.digest == *digest && repository_of(&other.name) == repository
    };
    let of_ours: Vec<_> = inventory.names.values().filter(is_ours).collect();
    let mut names: Vec<_> = of_ours.iter().map(|name| name.name.clone()).collect();
    names.sort_unstable();
    Some(Ours {
        repository: repository.to_owned(),
        digest: digest.clone(),
        pulled_at: pulled_at.to_owned(),
        is_pinned: of_ours.iter().any(|name| name.labels.contains_key(PINNED))
            || inventory
                .names
                .values()
                .any(|name| is_pinned_for(name, repository, digest)),
        names,
    })
}

/// Returns the repository of a name by digest or by tag, with its registry.
#[must_use]
pub fn repository_of(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let path = name.rfind('/').map_or(0, |slash| slash + 1);
    name[path..].find(':').map_or(name, |colon| &name[..path + colon])
}

/// Returns when a name was pulled by us, by its label.
pub(super) fn labelled(name: &Name) -> Option<&str> {
    name.labels.get(PULLED_AT).map(String::as_str)
}

/// Returns when a name of ours was pulled, by what the manifest's blob carries; none where somebody else has made it.
fn recorded<'a>(inventory: &'a Inventory, name: &Name) -> Option<&'a str> {
    let blob = inventory.blobs.get(&name.target.digest)?;
    let (pulled_at, made_at) = blob.labels.get(&key(&name.name))?.split_once(' ')?;
    let made_at = DateTime::parse_from_rfc3339(made_at).ok()?;
    (name.created_at? == made_at).then_some(pulled_at)
}

/// Returns the name of the label for a name: without the digest, which is the blob's.
pub(super) fn key(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(repository, _)| repository);
    format!("{PULLED_AT}/{name}")
}

pub(super) fn records(names: &[&Name], pulled_at: &str) -> BTreeMap<String, String> {
    let record = |name: &&Name| {
        let made_at = name.created_at?.to_rfc3339_opts(SecondsFormat::Nanos, true);
        Some((key(&name.name), format!("{pulled_at} {made_at}")))
    };
    names.iter().filter_map(record).collect()
}

/// Makes known that these names, as containerd has them, were made by our pull.
///
/// # Errors
/// containerd's.
pub(super) async fn record(containerd: &Containerd, names: &[&Name], pulled_at: &str) -> Result<(), Status> {
    match names {
        [] => Ok(()),
        [first, ..] => {
            containerd
                .label_blob(&first.target.digest, &records(names, pulled_at))
                .await
        }
    }
}

/// Returns when an image was pulled by us; none where it was not.
#[must_use]
pub fn pulled_at<'a>(inventory: &'a Inventory, image: &Image) -> Option<&'a str> {
    let name = inventory.names.get(&image.name_by_digest())?;
    (name.target.digest == image.digest()).then(|| recorded(inventory, name).or_else(|| labelled(name)))?
}

/// Sets right what the names of an image of ours carry, where it is there: the moment of the pull on them, where somebody has
/// written them anew, and on the manifest's blob, where an earlier version of this program, or none in time, has written it.
///
/// # Errors
/// containerd's.
pub async fn set_right(containerd: &Containerd, inventory: &Inventory, image: &Image) -> Result<(), Status> {
    let Some((pulled_at, lacking)) = lacking(inventory, image) else {
        return Ok(());
    };
    for name in &lacking.labels {
        containerd.label_name(name, &label(pulled_at)).await?;
    }
    record(containerd, &lacking.records, pulled_at).await
}

/// The names of ours that lack their label, and those that lack their record.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lacking<'a> {
    pub labels: Vec<&'a Name>,
    pub records: Vec<&'a Name>,
}

pub(super) fn lacking<'a>(inventory: &'a Inventory, image: &Image) -> Option<(&'a str, Lacking<'a>)> {
    let pulled_at = pulled_at(inventory, image)?;
    let names = [Some(image.name_by_digest()), image.name_by_tag()];
    let mut lacking = Lacking::default();
    for name in names.iter().flatten().filter_map(|name| inventory.names.get(name)) {
        match (labelled(name), recorded(inventory, name)) {
            _ if name.target.digest != image.digest() => {}
            (Some(_), None) => lacking.records.push(name),
            (None, Some(_)) => lacking.labels.push(name),
            _ => {}
        }
    }
    Some((pulled_at, lacking))
}

pub(super) fn label(pulled_at: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(PULLED_AT.to_owned(), pulled_at.to_owned())])
}
