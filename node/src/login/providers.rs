//! The credential providers that kubelet is set to use.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::Deserialize;
use serde_json::json;

use super::{credentials::Login, matching};
use crate::{host::Host, systemd::ServiceUnit, yaml};

/// Names the versions of a provider's protocol that kubelet speaks.
const VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// Names the registry whose login kubelet takes for `docker.io` where no other is for it.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Kubelet's configuration of its credential providers, in the order in which it names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Providers {
    /// The providers.
    pub list: Vec<Provider>,
    /// The folder of the host in which their programs are.
    pub folder: String,
    /// The files that cannot be read, for people.
    pub unreadable: Vec<String>,
}

/// One credential provider.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// Its name, which is its program's.
    pub name: String,
    /// The version of the protocol that it is spoken to in.
    #[serde(default)]
    pub api_version: String,
    /// The images that it is for.
    #[serde(default)]
    pub match_images: Vec<String>,
    /// The arguments of its program.
    args: Option<Vec<String>>,
    /// Further variables of its environment.
    env: Option<Vec<Variable>>,
    token_attributes: Option<TokenAttributes>,
}

#[derive(Clone, Deserialize, PartialEq, Eq)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct TokenAttributes {
    #[serde(default)]
    require_service_account: bool,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider {}", self.name) // its arguments and environment may hold a secret
    }
}

impl Providers {
    /// Reads them from where kubelet's command line says, else from where EKS' images have them.
    #[must_use]
    pub fn of(host: &Host, kubelet: &ServiceUnit) -> Self {
        let (config, folder) = if host.is_bottlerocket() {
            (
                "/etc/kubernetes/kubelet/credential-provider-config.yaml",
                "/usr/libexec/kubernetes/kubelet/plugins",
            )
        } else {
            (
                "/etc/eks/image-credential-provider/config.json",
                "/etc/eks/image-credential-provider",
            )
        };
        let config = kubelet.flag("image-credential-provider-config").unwrap_or(config);
        let folder = kubelet.flag("image-credential-provider-bin-dir").unwrap_or(folder);
        let mut providers = Self {
            folder: folder.to_owned(),
            ..Self::default()
        };
        for file in files(host, config) {
            match host.read(&file).as_deref().map(parse) {
                Some(Some(list)) => providers.list.extend(list),
                Some(None) => providers.unreadable.push(file),
                None => {}
            }
        }
        providers
    }

    /// Returns those that are for an image, `registry/repository`.
    pub fn of_image(&self, image: &str) -> impl Iterator<Item = &Provider> {
        self.list.iter().filter(move |provider| provider.is_for(image))
    }
}

/// Returns the configuration's files: itself, or those of a folder, which kubelet reads by their names.
fn files(host: &Host, config: &str) -> Vec<String> {
    if !host.path(config).is_dir() {
        return vec![config.to_owned()];
    }
    let is_config = |name: &String| [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end));
    let names = host.list(config).into_iter().filter(is_config);
    names.map(|name| format!("{config}/{name}")).collect()
}

/// Reads a `CredentialProviderConfig`, JSON or YAML; none where it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<Provider>> {
    #[derive(Deserialize)]
    struct Config {
        providers: Vec<Provider>,
    }
    let config: Config = serde_json::from_value(yaml::read(text)?).ok()?;
    Some(config.providers)
}

impl Provider {
    fn is_for(&self, image: &str) -> bool {
        self.match_images
            .iter()
            .any(|pattern| matching::matches(pattern, image))
    }

    /// Tells why it cannot be asked; none where it can.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let name = &self.name;
        if self.token_attributes.is_some_and(|token| token.require_service_account) {
            return Some(format!(
                "{name} was not asked: it wants the token of a pod's service account"
            ));
        }
        if !VERSIONS.contains(&self.api_version.as_str()) {
            return Some(format!("{name} was not asked: its apiVersion is none of kubelet's"));
        }
        let is_file = !name.contains(['/', ' ', '\0']) && !["", ".", ".."].contains(&name.as_str());
        (!is_file).then(|| "a credential provider was not asked: its name is no program's".to_owned())
    }

    /// Returns the words that start it.
    #[must_use]
    pub fn words(&self, host: &Host, folder: &str) -> Vec<String> {
        let program = Path::new(folder).join(&self.name);
        let mut words = host.program(&program.to_string_lossy());
        words.extend(self.args.iter().flatten().cloned());
        words
    }

    /// Adds its own variables to an environment.
    #[must_use]
    pub fn environment(&self, mut environment: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let own = self.env.iter().flatten().filter(|variable| is_variable(variable));
        environment.extend(own.map(|variable| (variable.name.clone(), variable.value.clone())));
        environment
    }

    /// Returns what it is asked on its standard input.
    #[must_use]
    pub fn request(&self, image: &str) -> String {
        json!({"kind": "CredentialProviderRequest", "apiVersion": self.api_version, "image": image}).to_string()
    }
}

/// Tells a variable that a process can have from one at which starting it would fail.
fn is_variable(variable: &Variable) -> bool {
    !variable.name.is_empty() && !variable.name.contains(['=', '\0']) && !variable.value.contains('\0')
}

/// A `CredentialProviderResponse`, as far as it matters: it is used once, however long it says that it may be.
#[derive(Deserialize)]
struct Response {
    auth: Option<BTreeMap<String, AuthConfig>>,
}

#[derive(Deserialize)]
struct AuthConfig {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Returns the login for an image from a provider's answer: the first that matches in the reverse order of their keys, so
/// that a longer path comes first, as kubelet has it.
///
/// # Errors
/// In words for people, which hold nothing of the answer.
pub fn login(answer: &[u8], image: &str) -> Result<Login, &'static str> {
    let answer: Response = serde_json::from_slice(answer).map_err(|_| "its answer is no CredentialProviderResponse")?;
    let entries = answer.auth.unwrap_or_default().into_iter();
    let entries: BTreeMap<_, _> = entries
        .map(|(location, entry)| (matching::key(&location), entry))
        .collect();
    let default = || {
        entries
            .get(DEFAULT_REGISTRY)
            .filter(|_| image.starts_with("docker.io/"))
    };
    let matching = entries
        .iter()
        .rev()
        .find(|(pattern, _)| matching::matches(pattern, image));
    match matching.map(|(_, entry)| entry).or_else(default) {
        Some(entry) if !entry.password.is_empty() => Ok(Login {
            user: entry.username.clone(),
            password: entry.password.clone(),
        }),
        Some(_) => Err("its answer has no password"),
        None => Err("its answer has nothing for this image"),
    }
}

#[cfg(test)]
mod tests;
