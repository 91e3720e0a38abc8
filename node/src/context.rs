//! The node that a command works on, as its parts use it.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use prefetch::{image::Image, manifest::MAX_BYTES, outcome::NodeReason};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    containerd::{Containerd, LOOK_UP, SOCKET, config::Config, inventory::Inventory},
    description::{self, Description, Runner},
    failure::Failure,
    host::Host,
    kubelet,
    login::{Answer, Login, Logins},
    registry::{DocumentKind, Registries},
    time::Time,
};

/// Bounds the age of an inventory with which a pull begins.
pub const FRESH: Duration = Duration::from_secs(5);

/// A node, and what is known of it. What only a pull takes is read when the first is made.
pub struct Context {
    /// Its files and programs.
    pub host: Host,
    /// The command's time.
    pub time: Time,
    /// Its containerd.
    pub containerd: Containerd,
    /// The settings of containerd.
    pub config: Config,
    inventory: Mutex<Option<Seen>>,
    facts: OnceCell<Facts>,
}

/// Holds an inventory and its moment.
struct Seen {
    inventory: Rc<Inventory>,
    at: Instant,
}

/// Holds what a pull takes beside containerd.
pub struct Facts {
    /// Kubelet's settings.
    pub kubelet: kubelet::Settings,
    /// The node as far as it decides what it can run.
    pub runner: Runner,
    registries: Registries,
    logins: Logins,
    given: RefCell<HashMap<String, Rc<tokio::sync::OnceCell<Answer>>>>,
    image_service: RefCell<Option<Containerd>>,
}

impl Context {
    /// Takes a node whose containerd has these settings.
    #[must_use]
    pub fn new(host: Host, time: Time, config: Config) -> Self {
        let containerd = Containerd::at(&host.path(SOCKET));
        Self {
            host,
            time,
            containerd,
            config,
            inventory: Mutex::new(None),
            facts: OnceCell::new(),
        }
    }

    /// Returns what containerd holds, seen at a moment or later; whoever asks at the same time shares the answer.
    ///
    /// # Errors
    /// `interrupted` where containerd does not answer, `timeout` where that takes too long.
    pub async fn inventory(&self, since: Instant) -> Result<Rc<Inventory>, Failure> {
        self.time
            .until_end(async {
                let mut seen = self.inventory.lock().await;
                if let Some(seen) = seen.as_ref().filter(|seen| seen.at >= since) {
                    return Ok(Rc::clone(&seen.inventory));
                }
                let at = Instant::now();
                let look = Inventory::look(&self.containerd, &self.config.snapshotter);
                let inventory = Rc::new(Box::pin(look).await?);
                *seen = Some(Seen {
                    inventory: Rc::clone(&inventory),
                    at,
                });
                Ok(inventory)
            })
            .await?
    }

    /// Returns what containerd held a moment ago.
    ///
    /// # Errors
    /// As [`Context::inventory`].
    pub async fn fresh_inventory(&self) -> Result<Rc<Inventory>, Failure> {
        let now = Instant::now();
        self.inventory(now.checked_sub(FRESH).unwrap_or(now)).await
    }

    /// Returns what containerd held a moment ago, perhaps names and blobs alone.
    ///
    /// # Errors
    /// As [`Context::inventory`].
    pub async fn fresh_names(&self) -> Result<Rc<Inventory>, Failure> {
        if let Some(seen) = self.inventory.lock().await.as_ref()
            && seen.at.elapsed() < FRESH
        {
            return Ok(Rc::clone(&seen.inventory));
        }
        Inventory::look_at_names(&self.containerd).await.map(Rc::new)
    }

    /// Returns what a pull takes.
    pub fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| {
            let kubelet = kubelet::Settings::of(&self.host);
            let image_service = kubelet.image_service.as_deref();
            let is_own = |socket: &&std::path::Path| *socket != std::path::Path::new(SOCKET);
            Facts {
                image_service: RefCell::new(
                    image_service
                        .filter(is_own)
                        .map(|socket| Containerd::at(&self.host.path(socket))),
                ),
                runner: Runner::here(&self.config.snapshotter),
                registries: Registries::on(&self.host, self.config.hosts_folders.clone()),
                logins: Logins::on(&self.host),
                given: RefCell::default(),
                kubelet,
            }
        })
    }

    /// Returns the runtime classes for which an image has to be pulled apart, one for each snapshotter: name and snapshotter.
    pub fn other_runtimes(&self) -> impl Iterator<Item = &(String, String)> {
        let all = &self.config.other_snapshotters;
        let first = |(number, (_, snapshotter)): &(usize, &(String, String))| {
            all.iter().position(|(_, other)| other == snapshotter) == Some(*number)
        };
        let apart = all.iter().enumerate().filter(first).map(|(_, runtime)| runtime);
        apart.filter(|_| self.config.discards_layers)
    }

    /// Returns the server of CRI's image service that kubelet asks, where that is not containerd itself: SOCI's snapshotter
    /// passes on what it is asked, and learns the login by it.
    pub fn other_image_service(&self) -> Option<Containerd> {
        self.facts().image_service.borrow().clone()
    }

    /// Gives up that server, which does not know the call or does not run: containerd is asked itself from now on.
    pub fn give_up_other_image_service(&self) {
        self.facts().image_service.replace(None);
    }

    /// Returns the login for an image's registry. It is asked for once; whoever asks at the same time shares it, and
    /// `on_failure` is told the cause where a helper failed.
    pub async fn login(&self, image: &Image, on_failure: impl FnOnce(&str)) -> Answer {
        let given = {
            let mut given = self.facts().given.borrow_mut();
            Rc::clone(given.entry(image.registry().to_owned()).or_default())
        };
        let ask = async {
            let answer = self.login_anew(image).await;
            if let Answer::Failed(cause) = &answer {
                on_failure(cause);
            }
            answer
        };
        given.get_or_init(|| ask).await.clone()
    }

    /// Asks for a login anew, beside which others still use the one before.
    pub async fn login_anew(&self, image: &Image) -> Answer {
        let logins = &self.facts().logins;
        Box::pin(logins.get(image.registry(), image.repository(), self.time.left())).await
    }

    /// Returns the node's registries.
    pub fn registries(&self) -> &Registries {
        &self.facts().registries
    }

    /// Describes an image by what its registry says.
    ///
    /// # Errors
    /// The registry's failure.
    pub async fn describe(&self, image: &Image, login: Option<&Login>) -> Result<Description, Failure> {
        let read = async |kind, digest: String| self.ask_registry(image, kind, &digest, login).await;
        Box::pin(description::describe(image.digest(), &self.facts().runner, read)).await
    }

    /// Describes an image by what containerd holds of it.
    ///
    /// # Errors
    /// `interrupted` where containerd does not hold it, or does not answer.
    pub async fn describe_local(&self, image: &Image) -> Result<Description, Failure> {
        let read = async |_, digest: String| {
            let answer = self
                .time
                .until_end(self.containerd.read_blob(&digest, MAX_BYTES))
                .await?;
            answer.map_err(|status| Failure::new(NodeReason::Interrupted, status.message()))
        };
        Box::pin(description::describe(image.digest(), &self.facts().runner, read)).await
    }

    /// Asks a registry for a document by its digest.
    ///
    /// # Errors
    /// The registry's failure.
    pub async fn ask_registry(
        &self,
        image: &Image,
        kind: DocumentKind,
        digest: &str,
        login: Option<&Login>,
    ) -> Result<Vec<u8>, Failure> {
        let within = self.time.left().min(LOOK_UP);
        let (registry, repository) = (image.registry(), image.repository());
        let registries = &self.facts().registries;
        registries.get(registry, repository, kind, digest, login, within).await
    }

    /// Asks a registry which digest an image's tag stands for; none where it has none.
    ///
    /// # Errors
    /// The registry's failure.
    pub async fn ask_registry_for_tag(&self, image: &Image, login: Option<&Login>) -> Result<Option<String>, Failure> {
        let within = self.time.left().min(LOOK_UP);
        let (registry, repository) = (image.registry(), image.repository());
        let tag = image.tag().unwrap_or_default();
        let registries = &self.facts().registries;
        registries.digest_of_tag(registry, repository, tag, login, within).await
    }
}
