//! The registries of ECR that are asked: this account's in this Region, and central ones of other accounts or Regions.

use std::collections::BTreeMap;

use aws_sdk_ecr::{
    Client,
    config::{Builder, Region},
    error::ProvideErrorMetadata,
    operation::{
        batch_get_image::builders::BatchGetImageFluentBuilder, describe_images::builders::DescribeImagesFluentBuilder,
    },
};

use super::error::ImagesError;
use crate::{
    image::{ecr_region, is_same_registry},
    settings::{CentralRegistry, UsageSettings},
};

/// A private registry of ECR, and the client that asks it.
#[derive(Clone, Debug)]
pub struct Registry {
    client: Client,
    /// The account as which it is asked, where it is a central one.
    account: Option<String>,
}

impl Registry {
    /// Asks the registry of the client's own account and Region.
    #[must_use]
    pub fn own(client: Client) -> Self {
        Self { client, account: None }
    }

    /// Asks this account's registry, by a client of the registry's Region.
    #[must_use]
    pub fn central(client: Client, account: &str) -> Self {
        Self {
            client,
            account: Some(account.to_owned()),
        }
    }

    /// Begins a question for the details of images.
    #[must_use]
    pub fn describe_images(&self, repository: &str) -> DescribeImagesFluentBuilder {
        let request = self.client.describe_images().repository_name(repository);
        request.set_registry_id(self.account.clone())
    }

    /// Begins a question for manifests.
    #[must_use]
    pub fn batch_get_image(&self, repository: &str) -> BatchGetImageFluentBuilder {
        let request = self.client.batch_get_image().repository_name(repository);
        request.set_registry_id(self.account.clone())
    }

    /// Returns true where it is a central registry, and a policy keeps from this account what was asked for.
    #[must_use]
    pub fn is_closed(&self, error: &ImagesError) -> bool {
        let refusal = match error {
            ImagesError::Images(_, error) => error.as_service_error(),
            _ => None,
        };
        self.account.is_some() && refusal.is_some_and(is_denied)
    }

    /// Returns the client; a central registry lists no repositories by it.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the account of a central registry.
    pub(super) fn central_account(&self) -> Option<&str> {
        self.account.as_deref()
    }
}

/// The registries from which a stack takes images.
#[derive(Clone, Debug)]
pub struct Registries {
    own: (String, Registry),
    central: Vec<(CentralRegistry, Registry)>,
}

impl Registries {
    /// Makes a client for each Region in which the settings name a registry.
    #[must_use]
    pub fn new(config: &Builder, settings: &UsageSettings) -> Self {
        let own = Client::from_conf(config.clone().build());
        let mut clients: BTreeMap<String, Client> = BTreeMap::new();
        clients.extend(ecr_region(&settings.registry).map(|region| (region, own.clone())));
        let central = settings.central.iter().map(|registry| {
            let client = clients.entry(registry.region.clone()).or_insert_with(|| {
                let region = Region::new(registry.region.clone());
                Client::from_conf(config.clone().region(region).build())
            });
            (registry.clone(), Registry::central(client.clone(), &registry.account))
        });
        let central = central.collect();
        Self::with((settings.registry.clone(), Registry::own(own)), central)
    }

    /// Asks these: this account's registry, by its host name, and the central ones.
    #[must_use]
    pub fn with(own: (String, Registry), central: Vec<(CentralRegistry, Registry)>) -> Self {
        Self { own, central }
    }

    /// Finds the registry with a host name, whichever of its endpoints that is; none where the stack takes no images from there.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<&Registry> {
        let own = (self.own.0.as_str(), &self.own.1);
        let central = self
            .central()
            .map(|(central, registry)| (central.host.as_str(), registry));
        let mut all = std::iter::once(own).chain(central);
        all.find(|(known, _)| is_same_registry(known, host))
            .map(|(_, registry)| registry)
    }

    /// Returns this account's registry.
    #[must_use]
    pub fn own(&self) -> &Registry {
        &self.own.1
    }

    /// Gives the central registries.
    pub fn central(&self) -> impl Iterator<Item = (&CentralRegistry, &Registry)> {
        self.central.iter().map(|(central, registry)| (central, registry))
    }
}

/// Returns true where a policy does not let the caller ask.
pub(super) fn is_denied(error: &impl ProvideErrorMetadata) -> bool {
    error.code().is_some_and(|code| code.starts_with("AccessDenied"))
}
