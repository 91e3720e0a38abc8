//! Claims on images: of containers, of pods that are just starting, and of what commands named a moment ago.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{SecondsFormat, TimeDelta, Utc};
use tonic::Status;

use super::recent;
use crate::{
    containerd::{
        Containerd,
        cri::{CriContainer, Sandbox},
        inventory::Inventory,
    },
    host::Host,
};

/// Bounds the time for which a pod may want an image of which it has no container yet: kubelet pulls them one by one, and
/// nobody else knows which it is going to want.
const STARTING: Duration = Duration::from_mins(5);
/// Bounds it for a pod without any container, as while its first image is pulled.
const WITHOUT_CONTAINER: Duration = Duration::from_hours(1);
/// Bounds the time after which a newer image leaves a pod that is starting no claim on an older one: on a node where
/// pods start all the time nothing would ever go.
const DISPLACED: TimeDelta = TimeDelta::hours(1);

/// Holds who has a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The images of containers, as CRI names them: an id, a name or a digest.
    pub of_containers: HashSet<String>,
    /// The names by digest that commands have named lately.
    pub recently_named: HashSet<String>,
    /// The cause for which nothing may go; none where all is known.
    pub on_all: Option<String>,
    /// True while a pod is just starting, and may want any image that was of use until a moment ago.
    pub is_pod_starting: bool,
    /// Before this moment is long ago for a pod that is starting (RFC 3339, as of pulls).
    pub long_ago: String,
}

impl Claims {
    /// Asks CRI and the commands' own records. Where they do not answer, nothing may go.
    pub async fn of(containerd: &Containerd, host: &Host) -> Self {
        let answers = tokio::try_join!(containerd.containers(), containerd.sandboxes());
        let recent = recent::read(host);
        match (answers, recent) {
            (Ok((of_pods, pods)), Some(recently_named)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Self {
                    recently_named,
                    long_ago: (Utc::now() - DISPLACED).to_rfc3339_opts(SecondsFormat::Micros, true),
                    ..Self::of_pods(&of_pods, &pods, now)
                }
            }
            (Err(status), _) => Self::on_all(unanswered(&status)),
            (_, None) => Self::on_all("it cannot be told what commands named lately".to_owned()),
        }
    }

    fn on_all(why: String) -> Self {
        Self {
            on_all: Some(why),
            ..Self::default()
        }
    }

    /// Decides it by CRI's records, at a time since 1970.
    #[must_use]
    pub fn of_pods(containers: &[CriContainer], sandboxes: &[Sandbox], now: Duration) -> Self {
        let ready: HashSet<_> = sandboxes
            .iter()
            .filter(|pod| pod.is_ready)
            .map(|pod| pod.id.as_str())
            .collect();
        let has_container: HashSet<_> = containers.iter().map(|container| container.sandbox.as_str()).collect();
        let is_starting = |pod: &Sandbox| {
            let created = Duration::from_nanos(u64::try_from(pod.created_at).unwrap_or_default());
            let limit = if has_container.contains(pod.id.as_str()) {
                STARTING
            } else {
                WITHOUT_CONTAINER
            };
            pod.is_ready && now.saturating_sub(created) < limit
        };
        Self {
            of_containers: containers
                .iter()
                .filter(|container| container.is_alive || ready.contains(container.sandbox.as_str()))
                .flat_map(|container| [container.image.clone(), container.image_ref.clone()])
                .filter(|image| !image.is_empty())
                .collect(),
            is_pod_starting: sandboxes.iter().any(is_starting),
            ..Self::default()
        }
    }

    /// Tells whether a command has named an image lately, by its name by digest.
    #[must_use]
    pub fn is_named_recently(&self, name_by_digest: &str) -> bool {
        self.recently_named.contains(name_by_digest)
    }

    /// Tells whether a pod that is just starting may want an image that a newer one has displaced at a moment.
    #[must_use]
    pub fn may_be_wanted(&self, displaced_at: &str) -> bool {
        self.is_pod_starting && displaced_at >= self.long_ago.as_str()
    }

    /// Tells why an image may not go, or be pinned any more; none where it may.
    #[must_use]
    pub fn on(&self, digest: &str, inventory: &Inventory) -> Option<String> {
        let is_its = |image: &String| {
            image.ends_with(digest)
                || inventory
                    .names
                    .get(image)
                    .is_some_and(|name| name.target.digest == digest)
        };
        let used = inventory.used_snapshots();
        let chains = inventory.chains(digest);
        if chains.iter().any(|chain| used.contains(chain.as_str())) || self.of_containers.iter().any(is_its) {
            return Some("a container uses it".to_owned());
        }
        if chains.is_empty() {
            return Some("it cannot be told whether a container uses it".to_owned());
        }
        self.on_all.clone()
    }
}

fn unanswered(status: &Status) -> String {
    format!("CRI does not tell which images pods use: {}", status.message())
}
