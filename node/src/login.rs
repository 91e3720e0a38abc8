//! Logins: from kubelet's credential providers, else from the AWS CLI, else none.

mod credentials;
pub mod environment;
pub mod helper;
pub mod matching;
pub mod providers;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

pub use self::credentials::Login;
use self::{
    helper::HelperError,
    providers::{Provider, Providers},
};
use crate::{host::Host, systemd::ServiceUnit};

/// Tells what came of asking for a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A login.
    Given(Login),
    /// No helper is for this image: it is asked for without.
    None,
    /// A helper is for it, and failed: the cause.
    Failed(String),
}

/// Bounds the time of a helper; kubelet's own limit is a minute.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// Gets logins on one node.
#[derive(Clone)]
pub struct Logins {
    host: Host,
    environment: BTreeMap<String, String>,
    providers: Providers,
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold a proxy's password.
        f.debug_struct("Logins")
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

impl Logins {
    /// Reads how kubelet gets logins on this node; nothing is asked yet.
    #[must_use]
    pub fn on(host: &Host) -> Self {
        let kubelet = ServiceUnit::of(host, "kubelet.service");
        let mut environment = environment::for_helpers(host, &kubelet);
        if host.is_bottlerocket() {
            environment
                .entry("HOME".to_owned())
                .or_insert_with(|| "/root".to_owned());
        }
        Self {
            host: host.clone(),
            environment,
            providers: Providers::of(host, &kubelet),
        }
    }

    /// Gets the login for an image, `registry/repository`, anew: whoever asks keeps it. All helpers together have so long at
    /// most, each of them half a minute, and nothing of them outlives that.
    ///
    /// Kubelet's providers that are for the image are asked in their order, until one gives a login; then the AWS CLI, for
    /// ECR's registries.
    pub async fn get(&self, registry: &str, repository: &str, within: Duration) -> Answer {
        let end = Instant::now() + within;
        let image = format!("{registry}/{repository}");
        let mut causes: Vec<_> = self
            .providers
            .unreadable
            .iter()
            .map(|file| format!("{file} cannot be read"))
            .collect();
        for provider in self.providers.of_image(&image) {
            match self.ask_provider(provider, &image, end).await {
                Ok(login) => return Answer::Given(login),
                Err(cause) => causes.push(cause),
            }
        }
        match self.ask_aws_cli(registry, end).await {
            Some(Ok(login)) => return Answer::Given(login),
            Some(Err(cause)) => causes.push(cause),
            None => {}
        }
        if causes.is_empty() {
            Answer::None
        } else {
            Answer::Failed(causes.join("; "))
        }
    }

    async fn ask_provider(&self, provider: &Provider, image: &str, end: Instant) -> Result<Login, String> {
        if let Some(obstacle) = provider.obstacle() {
            return Err(obstacle);
        }
        let name = &provider.name;
        let words = provider.words(&self.host, &self.providers.folder);
        let environment = provider.environment(self.environment.clone());
        let answer = helper::run(&words, &environment, provider.request(image).as_bytes(), left(end)).await;
        let answer = answer.map_err(|error| no_login(name, image, &error))?;
        providers::login(&answer, image).map_err(|cause| no_login(name, image, cause))
    }

    /// Asks the AWS CLI; none where the registry is not ECR's, or there is no such program.
    async fn ask_aws_cli(&self, registry: &str, end: Instant) -> Option<Result<Login, String>> {
        let region = prefetch::image::ecr_region(registry)?;
        let words = ["aws", "ecr", "get-login-password", "--region", &region].map(str::to_owned);
        match helper::run(&words, &self.environment, b"", left(end)).await {
            Ok(answer) => Some(password(&answer).map_err(|cause| no_login(AWS_CLI, registry, cause))),
            Err(HelperError::Missing) => None,
            Err(error) => Some(Err(no_login(AWS_CLI, registry, error))),
        }
    }
}

const AWS_CLI: &str = "the AWS CLI";

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).min(HELPER_LIMIT)
}

fn no_login(helper: &str, image: &str, cause: impl fmt::Display) -> String {
    let registry = image.split('/').next().unwrap_or(image);
    format!("{helper} gave no login for {registry}: {cause}")
}

fn password(answer: &[u8]) -> Result<Login, &'static str> {
    let line = std::str::from_utf8(answer)
        .ok()
        .and_then(|text| text.lines().next())
        .map(str::trim);
    match line {
        Some(password) if !password.is_empty() => Ok(Login {
            user: "AWS".to_owned(),
            password: password.to_owned(),
        }),
        _ => Err("its answer has no password"),
    }
}

#[cfg(test)]
mod tests;
