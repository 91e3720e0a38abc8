//! Names and labels: that an image is found by digest and by tag, and that what is ours is known to be.

pub mod labels;
pub mod ours;
pub mod pins;
pub mod removal;

use std::collections::HashSet;

use chrono::{SecondsFormat, Utc};
use prefetch::{image::Image, outcome::NodeReason};
use tonic::{Code, Status};

use self::labels::{PULLED_AT, is_id};
use crate::{
    containerd::{Containerd, images::Name, inventory::Inventory},
    failure::Failure,
};

/// Tells CRI that it knows an image already.
const MANAGED: &str = "io.cri-containerd.image";

/// Tells what became of an image's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// It stands for the image, or the image has none.
    Given,
    /// It stands for another image, here and in the registry, and stays there.
    Moved,
}

/// The names of an image that stood for it before a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before(HashSet<String>);

impl Before {
    /// Takes those that are right in an inventory.
    #[must_use]
    pub fn of(inventory: &Inventory, image: &Image) -> Self {
        let names = names_of(image);
        Self(names.filter(|name| inventory.is_right(name, image.digest())).collect())
    }
}

fn names_of(image: &Image) -> impl Iterator<Item = String> {
    [Some(image.name_by_digest()), image.name_by_tag()]
        .into_iter()
        .flatten()
}

/// Gives an image that is here the names that are missing, and labels what a pull of ours made.
///
/// `before` is what it was named before that pull; none where it was not pulled. `digest_of_tag` asks the registry, and is called
/// only where the tag stands for another image here: commands may come late.
///
/// # Errors
/// `interrupted` where containerd does not do it, and what `digest_of_tag` fails with.
pub async fn add_names(
    containerd: &Containerd,
    inventory: &Inventory,
    image: &Image,
    before: Option<&Before>,
    digest_of_tag: impl AsyncFnOnce() -> Result<Option<String>, Failure>,
) -> Result<Tag, Failure> {
    let names = Names::look(containerd, image).await?;
    let new = before.filter(|Before(names)| !names.contains(&image.name_by_digest()));
    let (is_new, noted) = (new.is_some(), ours::pulled_at(inventory, image).map(str::to_owned));
    let pulled_at = new.map(|before| names.moment(image, before)).or(noted);
    let model = names.model(image, pulled_at.as_deref())?;
    let (by_digest, by_tag) = tokio::join!(
        names.give_digest(containerd, &model, image, is_new),
        names.give_tag(containerd, &model, image, digest_of_tag)
    );
    if let Some(pulled_at) = pulled_at {
        let tag = by_tag.as_ref().ok().and_then(|(_, made)| made.as_ref());
        let made: Vec<_> = by_digest
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .into_iter()
            .chain(tag)
            .collect();
        ours::record(containerd, &made, &pulled_at)
            .await
            .map_err(|status| unnamed(&status))?;
    }
    by_digest?;
    by_tag.map(|(tag, _)| tag)
}

/// An image's two names as containerd has them, whatever they stand for.
struct Names {
    by_digest: Option<Name>,
    by_tag: Option<Name>,
}

impl Names {
    async fn look(containerd: &Containerd, image: &Image) -> Result<Self, Failure> {
        let filters: Vec<_> = names_of(image).map(|name| format!("name=={name}")).collect();
        let mut names = containerd.names(&filters).await.map_err(|status| unnamed(&status))?;
        let mut take = |name: Option<String>| {
            let index = names.iter().position(|found| Some(&found.name) == name.as_ref())?;
            Some(names.swap_remove(index))
        };
        Ok(Self {
            by_digest: take(Some(image.name_by_digest())),
            by_tag: take(image.name_by_tag()),
        })
    }

    /// Returns the moment of a pull: what a command that was killed has noted by the tag alone, else this one.
    fn moment(&self, image: &Image, Before(before): &Before) -> String {
        let tag = self.by_tag.as_ref().filter(|tag| tag.is_right(image.digest()));
        let noted = tag.filter(|tag| !before.contains(&tag.name)).and_then(ours::labelled);
        noted.map_or_else(
            || Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
            str::to_owned,
        )
    }

    /// Returns what further names are to be like, but for the name itself.
    ///
    /// CRI adopts by itself what it has not adopted yet.
    fn model(&self, image: &Image, pulled_at: Option<&str>) -> Result<Name, Failure> {
        let mut right = [&self.by_digest, &self.by_tag]
            .into_iter()
            .flatten()
            .filter(|name| name.is_right(image.digest()));
        let source = right
            .next()
            .ok_or_else(|| Failure::new(NodeReason::Interrupted, "containerd has no name that stands for it"))?;
        let managed = source
            .labels
            .get_key_value(MANAGED)
            .map(|(label, value)| (label.clone(), value.clone()));
        let pulled_at = pulled_at.map(|moment| (PULLED_AT.to_owned(), moment.to_owned()));
        Ok(Name {
            target: source.target.clone(),
            labels: managed.into_iter().chain(pulled_at).collect(),
            ..Name::default()
        })
    }

    /// Labels the name by digest where a pull of ours made it, or makes it; returns it where it is ours, to be recorded.
    async fn give_digest(
        &self,
        containerd: &Containerd,
        model: &Name,
        image: &Image,
        is_new: bool,
    ) -> Result<Option<Name>, Failure> {
        let name = Name {
            name: image.name_by_digest(),
            ..model.clone()
        };
        let changed = match &self.by_digest {
            Some(found) if found.is_right(image.digest()) && !is_new => return agreed(containerd, found, model).await,
            Some(found) if found.is_right(image.digest()) => {
                let mut labels = model.labels.clone();
                labels.remove(MANAGED); // CRI's own
                containerd.label_name(found, &labels).await
            }
            Some(_) => containerd.move_name(&name).await,
            None => containerd.create_name(&name).await,
        };
        unless_there(changed)
    }

    /// Names the image by its tag, also where that stands for another image: unless it does so in the registry as well.
    async fn give_tag(
        &self,
        containerd: &Containerd,
        model: &Name,
        image: &Image,
        digest_of_tag: impl AsyncFnOnce() -> Result<Option<String>, Failure>,
    ) -> Result<(Tag, Option<Name>), Failure> {
        let Some(name) = image.name_by_tag() else {
            return Ok((Tag::Given, None));
        };
        let mut found = self.by_tag.clone();
        let name = Name { name, ..model.clone() };
        if found.is_none() {
            if let Some(made) = unless_there(containerd.create_name(&name).await)? {
                return Ok((Tag::Given, Some(made)));
            }
            found = Self::look(containerd, image).await?.by_tag; // kubelet has just given it
        }
        if let Some(found) = found.as_ref().filter(|found| found.is_right(image.digest())) {
            return Ok((Tag::Given, agreed(containerd, found, &name).await?));
        }
        let is_others = found.is_some_and(|found| found.target.digest != image.digest());
        if is_others && digest_of_tag().await?.as_deref() != Some(image.digest()) {
            return Ok((Tag::Moved, None));
        }
        let moved = containerd.move_name(&name).await.map_err(|status| unnamed(&status))?;
        Ok((Tag::Given, Some(moved)))
    }
}

/// Returns a name that carries our label, as the model does from then on; a command that was killed may have left it with another
/// moment, or without its record.
async fn agreed(containerd: &Containerd, found: &Name, model: &Name) -> Result<Option<Name>, Failure> {
    match (ours::labelled(found), ours::labelled(model)) {
        (None, _) => Ok(None),
        (Some(moment), Some(wanted)) if moment != wanted => {
            let labelled = containerd.label_name(found, &ours::label(wanted)).await;
            labelled.map(Some).map_err(|status| unnamed(&status))
        }
        (Some(_), _) => Ok(Some(found.clone())),
    }
}

/// Returns none where somebody else has made the name meanwhile.
fn unless_there(made: Result<Name, Status>) -> Result<Option<Name>, Failure> {
    match made {
        Ok(name) => Ok(Some(name)),
        Err(status) if status.code() == Code::AlreadyExists => Ok(None),
        Err(status) => Err(unnamed(&status)),
    }
}

fn unnamed(status: &Status) -> Failure {
    let detail = format!("containerd does not name it: {}", status.message());
    Failure::new(NodeReason::Interrupted, detail)
}

/// Removes the names that a pull which came to nothing left behind; those that were there before stay.
///
/// # Errors
/// `interrupted` where containerd does not do it.
pub async fn remove_new_names(containerd: &Containerd, image: &Image, before: &Before) -> Result<(), Failure> {
    let filter = format!("target.digest=={}", image.digest());
    let names = containerd.names(&[filter]).await.map_err(|status| unnamed(&status))?;
    for name in new_names(&names, image, before) {
        containerd
            .remove_name(name, false)
            .await
            .map_err(|status| unnamed(&status))?;
    }
    Ok(())
}

/// Returns the names of an image's digest that a pull has made: where nothing else names it, that by which CRI alone knows it,
/// and then its own, so that none is left that nobody looks for.
fn new_names<'a>(names: &'a [Name], image: &Image, Before(before): &Before) -> Vec<&'a str> {
    let own: Vec<_> = names_of(image).collect();
    let is_new = |name: &&str| own.iter().any(|own| own == name) && !before.contains(*name);
    let names = names.iter().map(|name| name.name.as_str());
    let (mut ids, names): (Vec<_>, Vec<_>) = names.partition(|name| is_id(name));
    let (new, others): (Vec<_>, Vec<_>) = names.into_iter().partition(is_new);
    if !others.is_empty() {
        ids.clear();
    }
    ids.extend(new);
    ids
}

#[cfg(test)]
mod tests;
