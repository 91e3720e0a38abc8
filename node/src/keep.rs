//! Images of ours that stay, are pinned, or are let go: a decision, and the calls that carry it out.

pub mod claims;
pub mod recent;

use std::collections::{BTreeSet, HashMap, HashSet};

use prefetch::image::Image;

use tonic::Status;

use crate::{
    containerd::{Containerd, inventory::Inventory},
    host::Host,
    kubelet::Settings,
    naming::{
        labels::is_id,
        ours::{self, Ours},
        pins, removal,
    },
};

pub use claims::Claims;

/// Comes after every moment of a pull.
const NEVER: &str = "never";

/// Holds what a command asks to be kept.
#[derive(Clone, Debug)]
pub struct KeepPolicy<'a> {
    /// Its images, and what became of them.
    pub images: &'a [(&'a Image, Presence)],
    /// The number of newest images of ours that stay in each repository; 0 to remove none.
    pub keep: usize,
    /// True where they are pinned while they are kept.
    pub pin: bool,
    /// True where nothing is changed, and it is only said what would be.
    pub report_only: bool,
}

/// Tells if an image of the command is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was, or is by now.
    There,
    /// It would be, if the command did not only report.
    WouldBe,
    /// It is not.
    Missing,
}

/// Decides what becomes of an image of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays as it is.
    Stays,
    /// It stays, and is pinned.
    Pin,
    /// It stays without a pin, for this reason.
    Unpin(String),
    /// It goes.
    LetGo,
}

/// Tells how images fare where kubelet removes unused ones by age (`imageMaximumGCAge`), however free the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It does not.
    Unlimited,
    /// They are pinned while they are kept.
    Pinned,
    /// Nobody would unpin them, and kubelet would remove them within minutes: they are not brought.
    NotBrought,
}

impl Age {
    /// Decides it for a command that keeps so many images.
    #[must_use]
    pub fn of(kubelet: &Settings, keep: usize) -> Self {
        match (kubelet.has_maximum_age, keep) {
            (false, _) => Self::Unlimited,
            (true, 0) => Self::NotBrought,
            (true, _) => Self::Pinned,
        }
    }

    /// Says it; nothing where there is nothing to say.
    #[must_use]
    pub fn words(self) -> Option<&'static str> {
        match self {
            Self::Unlimited => None,
            Self::Pinned => Some("kubelet removes unused images by age (imageMaximumGCAge): what is kept is pinned"),
            Self::NotBrought => {
                Some("kubelet removes unused images by age (imageMaximumGCAge), and without keep nothing is pinned")
            }
        }
    }
}

/// Lets go of what is not kept, and pins what is to be, in the repositories of the command's images; tells what it does.
///
/// Claims are looked for only where something is to go.
pub async fn tidy(
    containerd: &Containerd,
    host: &Host,
    inventory: &Inventory,
    policy: &KeepPolicy<'_>,
    mut say: impl FnMut(&str),
) {
    let all = ours::ours(inventory);
    let mut decided = decide(policy, &all, inventory, &Claims::default());
    if decided.iter().any(|(_, decision)| *decision == Decision::LetGo) {
        let claims = Claims::of(containerd, host).await;
        decided = decide(policy, &all, inventory, &claims);
    }
    for (image, decision) in decided {
        if let Some(words) = words(image, &decision, policy.keep) {
            say(&words);
        }
        if !policy.report_only {
            carry_out(containerd, inventory, image, &decision, &mut say).await;
        }
    }
    if policy.keep > 0 && !policy.report_only {
        let removed = pins::remove_stray_pins(containerd, inventory, &all).await;
        or_say(removed, "remove pins of what is gone", &mut say);
    }
}

/// Pins one image at once, if it is ours: where kubelet removes by age, it may not wait for the end of the command.
///
/// # Errors
/// containerd's.
pub async fn pin(containerd: &Containerd, inventory: &Inventory, image: &Image) -> Result<(), Status> {
    let is_it = |ours: &&Ours| name_by_digest(ours) == image.name_by_digest();
    match ours::ours(inventory).iter().find(is_it) {
        Some(ours) => pins::pin(containerd, inventory, ours).await,
        None => Ok(()),
    }
}

fn words(image: &Ours, decision: &Decision, keep: usize) -> Option<String> {
    let name = name_by_digest(image);
    match decision {
        Decision::Stays | Decision::Pin => None,
        Decision::Unpin(why) => Some(format!("unpinning {name}; it stays: {why}")),
        Decision::LetGo => Some(format!("removing {name}: of ours, the newest {keep} are kept")),
    }
}

async fn carry_out(
    containerd: &Containerd,
    inventory: &Inventory,
    image: &Ours,
    decision: &Decision,
    say: &mut impl FnMut(&str),
) {
    let (verb, done) = match decision {
        Decision::Stays => return,
        Decision::Pin => ("pin", pins::pin(containerd, inventory, image).await),
        Decision::Unpin(_) => ("unpin", pins::unpin(containerd, inventory, image).await),
        Decision::LetGo => ("remove", removal::remove(containerd, inventory, image).await),
    };
    or_say(done, &format!("{verb} {}", name_by_digest(image)), say);
}

fn or_say(done: Result<(), Status>, what: &str, say: &mut impl FnMut(&str)) {
    if let Err(status) = done {
        say(&format!("could not {what}: {}", status.message()));
    }
}

/// Decides what becomes of the images of ours in the repositories of the command's images that are there, or would be.
///
/// In each of them the newest stay, and whatever has a claim. What the command named stays too, but displaces nothing that came
/// later: a command may be late, or come twice.
#[must_use]
pub fn decide<'a>(
    policy: &KeepPolicy<'_>,
    ours: &'a [Ours],
    inventory: &Inventory,
    claims: &Claims,
) -> Vec<(&'a Ours, Decision)> {
    if policy.keep == 0 {
        return Vec::new();
    }
    let named: HashSet<_> = policy.images.iter().map(|(image, _)| image.name_by_digest()).collect();
    let mut kept = would_be(policy);
    let tidied: BTreeSet<_> = policy
        .images
        .iter()
        .filter(|(_, presence)| *presence != Presence::Missing)
        .map(|(image, _)| repository(image))
        .collect();
    let mut sorted: Vec<_> = ours.iter().filter(|ours| tidied.contains(&ours.repository)).collect();
    sorted.sort_unstable_by_key(|ours| std::cmp::Reverse((&ours.pulled_at, &ours.repository, &ours.digest)));
    let mut displaced_at: HashMap<&str, &str> = HashMap::new();
    let decide = |image: &'a Ours| {
        let kept = kept.entry(image.repository.clone()).or_default();
        if *kept < policy.keep || named.contains(&name_by_digest(image)) {
            *kept += 1;
            if *kept <= policy.keep {
                displaced_at.insert(&image.repository, &image.pulled_at);
            }
            return (image, if policy.pin { Decision::Pin } else { Decision::Stays });
        }
        // without one that is kept, it is displaced by what would be
        let displaced_at = displaced_at.get(image.repository.as_str()).unwrap_or(&NEVER);
        (image, unless_claimed(image, displaced_at, ours, inventory, claims))
    };
    sorted.into_iter().map(decide).collect()
}

/// Counts the images that would be there, by repository: without them, one more would be said to stay.
fn would_be(policy: &KeepPolicy<'_>) -> HashMap<String, usize> {
    let mut images: Vec<_> = policy
        .images
        .iter()
        .filter(|(_, presence)| *presence == Presence::WouldBe)
        .collect();
    images.sort_unstable_by_key(|(image, _)| image.name_by_digest());
    images.dedup_by_key(|(image, _)| image.name_by_digest());
    let mut kept = HashMap::new();
    for (image, _) in images {
        *kept.entry(repository(image)).or_default() += 1;
    }
    kept
}

/// Lets an image go that a newer one has displaced at a moment, unless somebody else has a claim on it.
fn unless_claimed(image: &Ours, displaced_at: &str, ours: &[Ours], inventory: &Inventory, claims: &Claims) -> Decision {
    if claims.is_named_recently(&name_by_digest(image)) {
        return Decision::Stays; // with its pin, if it has one: whoever named it may want that
    }
    let other = others_name(image, ours, inventory).map(|name| format!("it is also named {name}"));
    match other.or_else(|| claims.on(&image.digest, inventory)) {
        None if claims.may_be_wanted(displaced_at) => Decision::Stays, // unpinned, kubelet might remove it
        None => Decision::LetGo,
        Some(why) if image.is_pinned => Decision::Unpin(why),
        Some(_) => Decision::Stays,
    }
}

/// Returns a name that somebody else has given an image: it is none of ours, in this or another repository, and not the one by
/// which CRI alone knows it.
fn others_name<'a>(image: &Ours, ours: &[Ours], inventory: &'a Inventory) -> Option<&'a str> {
    let is_ours = |name: &str| {
        let same = ours.iter().filter(|other| other.digest == image.digest);
        same.flat_map(|other| &other.names).any(|own| own == name)
    };
    let names = inventory
        .names
        .values()
        .filter(|name| name.target.digest == image.digest);
    names
        .map(|name| name.name.as_str())
        .filter(|name| !is_id(name) && !is_ours(name))
        .min()
}

fn repository(image: &Image) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

fn name_by_digest(image: &Ours) -> String {
    format!("{}@{}", image.repository, image.digest)
}

#[cfg(test)]
mod tests;
