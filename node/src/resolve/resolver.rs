//! One tag: its login, its attempts, and the digest that it stands for.

use std::path::PathBuf;

use prefetch::{
    image::TaggedImage,
    outcome::NodeReason,
    tag_line::{NOT_AN_IMAGE, TagFailure},
};

use super::image_kind::why_no_image;
use crate::{
    containerd::LOOK_UP,
    failure::Failure,
    host::Host,
    login::{self, Login, Logins},
    pull::retry::pause_after,
    registry::{DocumentKind, Registries},
    report::shown,
    time::Time,
};

/// Bounds the attempts to resolve a tag.
const MAX_ATTEMPTS: u32 = 3;

/// Holds the digest for which a tag stands, or why it is not told.
pub(super) type Answer = Result<String, TagFailure>;

/// A node's registries and logins, as one command asks them.
pub(super) struct Resolver<'a> {
    registries: Registries,
    logins: Logins,
    time: &'a Time,
}

/// An attempt that failed.
struct Failed {
    failure: TagFailure,
    is_retryable: bool,
}

impl<'a> Resolver<'a> {
    /// Takes the node's own settings; `hosts_folders` are containerd's.
    pub fn on(host: &Host, hosts_folders: Vec<PathBuf>, time: &'a Time) -> Self {
        Self {
            registries: Registries::on(host, hosts_folders),
            logins: Logins::on(host),
            time,
        }
    }

    /// Resolves a tag; what may pass is tried again.
    pub async fn resolve(&self, image: &TaggedImage) -> Answer {
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(image).await {
                Ok(digest) => return Ok(digest),
                Err(failed) => failed,
            };
            let pause = pause_after(attempt);
            if !failed.is_retryable || attempt == MAX_ATTEMPTS || pause >= self.time.left() {
                return Err(failed.failure);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Makes one attempt. A refused login may pass where a login helper failed at it.
    async fn attempt(&self, image: &TaggedImage) -> Result<String, Failed> {
        let time = self.time.left();
        let answer = Box::pin(self.logins.get(image.registry(), image.repository(), time)).await;
        let (login, cause) = match answer {
            login::Answer::Given(login) => (Some(login), None),
            login::Answer::None => (None, None),
            login::Answer::Failed(cause) => (None, Some(cause)),
        };
        let asked = self.ask(image, login.as_ref()).await;
        asked.map_err(|failed| match cause {
            Some(cause) => failed.without_login(&cause),
            None => failed,
        })
    }

    /// Asks which digest a tag stands for, and for what that stands.
    async fn ask(&self, image: &TaggedImage, login: Option<&Login>) -> Result<String, Failed> {
        let (registry, repository) = (image.registry(), image.repository());
        let within = || self.time.left().min(LOOK_UP);
        let registries = &self.registries;
        let told = registries.digest_of_tag(registry, repository, image.tag(), login, within());
        let digest = told.await?.ok_or_else(|| no_such_tag(image))?;
        // What a host says that a tag stands for is believed once it has given what the digest stands for.
        let read = async |digest: String| {
            let manifest = DocumentKind::Manifest;
            registries
                .get(registry, repository, manifest, &digest, login, within())
                .await
        };
        match why_no_image(&digest, read).await? {
            None => Ok(digest),
            Some(why) => Err(Failed::no_image(&why)),
        }
    }
}

impl Failed {
    fn no_image(why: &str) -> Self {
        Self {
            failure: TagFailure {
                reason: NOT_AN_IMAGE.to_owned(),
                message: shown(why),
            },
            is_retryable: false,
        }
    }

    /// Takes a failure for that of a login helper, where the registry wants a login.
    fn without_login(self, cause: &str) -> Self {
        if self.failure.reason != NodeReason::Denied.as_str() {
            return self;
        }
        let message = shown(&format!("{}; {cause}", self.failure.message));
        Self {
            failure: TagFailure {
                message,
                ..self.failure
            },
            is_retryable: true,
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            is_retryable: failure.reason == NodeReason::Registry,
            failure: failure.into(),
        }
    }
}

impl From<Failure> for TagFailure {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason.to_string(),
            message: shown(&failure.detail),
        }
    }
}

fn no_such_tag(image: &TaggedImage) -> Failure {
    let (registry, repository, tag) = (image.registry(), image.repository(), image.tag());
    Failure::new(
        NodeReason::NotFound,
        format!("{registry} has no tag {tag} in {repository}"),
    )
}
