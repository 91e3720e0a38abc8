//! One tag: its login, its attempts, and the digest that it stands for.

use std::path::PathBuf;

use prefetch::{
    image::TaggedImage,
    outcome::NodeReason,
    tag_line::{NOT_AN_IMAGE, TagFailure},
};

use super::{Answer, image_kind::why_no_image};
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
        let asked = match self.ask(image, login.as_ref()).await {
            Ok(None) => Ok(None),
            Ok(Some((digest, None))) => return Ok(digest),
            Ok(Some((_, Some(why)))) => Ok(Some(why)),
            Err(failure) => Err(failure),
        };
        Err(match asked {
            Ok(why) => Failed {
                failure: why.map_or_else(|| no_such_tag(image), |why| no_image(&why)),
                is_retryable: false,
            },
            Err(failure) => failed(failure, cause),
        })
    }

    /// Asks which digest a tag stands for, and why no node can run that, if so; none where there is no such tag.
    async fn ask(
        &self,
        image: &TaggedImage,
        login: Option<&Login>,
    ) -> Result<Option<(String, Option<String>)>, Failure> {
        let (registry, repository) = (image.registry(), image.repository());
        let within = || self.time.left().min(LOOK_UP);
        let registries = &self.registries;
        let told = registries.digest_of_tag(registry, repository, image.tag(), login, within());
        let Some(digest) = told.await? else {
            return Ok(None);
        };
        // What a host says that a tag stands for is believed once it has given what the digest stands for.
        let read = async |digest: String| {
            let manifest = DocumentKind::Manifest;
            registries
                .get(registry, repository, manifest, &digest, login, within())
                .await
        };
        let why = why_no_image(&digest, read).await?;
        Ok(Some((digest, why)))
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

fn no_such_tag(image: &TaggedImage) -> TagFailure {
    let (registry, repository, tag) = (image.registry(), image.repository(), image.tag());
    Failure::new(
        NodeReason::NotFound,
        format!("{registry} has no tag {tag} in {repository}"),
    )
    .into()
}

fn no_image(why: &str) -> TagFailure {
    TagFailure {
        reason: NOT_AN_IMAGE.to_owned(),
        message: shown(why),
    }
}

/// Takes a registry's failure, with the cause where a login helper failed before it.
fn failed(failure: Failure, cause: Option<String>) -> Failed {
    let is_for_login = failure.reason == NodeReason::Denied;
    let is_retryable = failure.reason == NodeReason::Registry || is_for_login && cause.is_some();
    let failure = match cause.filter(|_| is_for_login) {
        Some(cause) => Failure::new(failure.reason, format!("{}; {cause}", failure.detail)),
        None => failure,
    };
    Failed {
        failure: failure.into(),
        is_retryable,
    }
}
