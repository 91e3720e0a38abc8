//! The function with the services around it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use aws_sdk_ec2::types::{ArchitectureValues, Instance, Tag};
use lambda_runtime::Diagnostic;
use prefetch::{
    ecr::{NewestImages, Registries, Registry},
    mocks::{
        Calls, Table, Tags, dynamodb,
        ecr::{RegistryImage, ecr},
        note_use, ran,
        settings::usage_settings,
        tag_resolver,
    },
    rule_images::RuleImages,
    settings::Mode,
    usage::{Usage, day},
};
use serde_json::Value;

use super::{
    manifests::{self, RULES, digest, settings, single},
    services::{Services, ec2},
};
use crate::{error::PlanError, handler::BakePlan};

/// The function and what is around it.
pub struct Cloud {
    pub plan: BakePlan,
    pub state: Arc<Mutex<Services>>,
    pub table: Arc<Mutex<(Calls, Table)>>,
    pub tags: Arc<Mutex<Tags>>,
}

impl Cloud {
    /// Makes a cloud with a repository `team/app` with v1, an image of 100 MiB.
    pub fn new() -> Self {
        Self::with(RULES, "{}")
    }

    pub fn with(rules: &str, defaults: &str) -> Self {
        let state = Arc::new(Mutex::new(Services::default()));
        let account = "210987654321";
        state.lock().unwrap().central.account = Some(account.to_owned());
        let central = ecr(&state, |state| (&mut state.calls, &mut state.central));
        let ecr = ecr(&state, |state| (&mut state.calls, &mut state.registry));
        let settings = settings(rules, defaults);
        let table = Arc::<Mutex<(Calls, Table)>>::default();
        let client = dynamodb(&table, |(calls, table)| (calls, table));
        let newest = NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), &settings.shared);
        let usage = Usage::with_client(client, "outcomes", 14);
        let tags = Arc::<Mutex<Tags>>::default();
        let registries = Registries::with(
            (settings.registry.clone(), Registry::own(ecr.clone())),
            vec![(
                usage_settings(account).central.remove(0),
                Registry::central(central, account),
            )],
        );
        let plan = BakePlan {
            tags: tag_resolver(&tags, Mode::Send),
            ec2: ec2(&state),
            images: RuleImages::with(newest, usage, settings.registry.clone())
                .and_central(&settings.shared, &registries),
            registries,
            ecr,
            settings,
        };
        let cloud = Self {
            plan,
            state,
            table,
            tags,
        };
        cloud.push("team/app", "v1", &single(&[("app", 100)]));
        cloud
    }

    pub fn state<T>(&self, with: impl FnOnce(&mut Services) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    /// Puts an image into the central registry; returns its digest.
    pub fn push_central(&self, repository: &str, tag: &str, manifest: &Value) -> String {
        let digest = digest(&format!("central {repository}:{tag}"));
        self.state(|state| {
            let text = manifest.to_string();
            state.central.manifests.insert(digest.clone(), text);
            let images = state.central.repositories.entry(repository.to_owned()).or_default();
            images.push(RegistryImage::new(&digest, &[tag], 0));
        });
        digest
    }

    pub fn push(&self, repository: &str, tag: &str, manifest: &Value) {
        self.state(|state| {
            for child in manifest["manifests"].as_array().into_iter().flatten() {
                let architecture = child["platform"]["architecture"].as_str().unwrap();
                let mib = (0..1000).find(|mib| manifests::child(architecture, *mib) == child["digest"]);
                if let Some(mib) = mib {
                    let image = single(&[(&format!("{architecture} layer {mib}"), mib)]);
                    let digest = manifests::child(architecture, mib);
                    state.registry.manifests.insert(digest, image.to_string());
                }
            }
            let digest = digest(&format!("{repository}:{tag}"));
            state.registry.manifests.insert(digest.clone(), manifest.to_string());
            let images = state.registry.repositories.entry(repository.to_owned()).or_default();
            images.push(RegistryImage {
                manifest: None,
                artifact: None,
                ..RegistryImage::new(&digest, &[tag], i64::try_from(images.len()).unwrap())
            });
        });
    }

    /// Notes that so many nodes of a rule run an image of so many bytes today.
    pub fn run(&self, rule: &str, image: &str, nodes: usize, bytes: u64) {
        let mut row = ran(image, nodes, day(SystemTime::now()));
        row.bytes = bytes;
        note_use(&mut self.table.lock().unwrap().1, rule, &row);
    }

    /// Puts one more tag on an image.
    pub fn tag(&self, repository: &str, tag: &str, more: &str) {
        self.state(|state| {
            let images = state.registry.repositories.get_mut(repository).unwrap().iter_mut();
            let mut of_tag = images.filter(|image| image.tags[0] == tag);
            of_tag.next().unwrap().tags.push(more.to_owned());
        });
    }

    pub fn node(&self, architecture: &str, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut tags = BTreeMap::from([("aws:eks:cluster-name".to_owned(), "prod".to_owned())]);
        change(&mut tags);
        let tags = tags
            .into_iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build());
        let node = Instance::builder().architecture(ArchitectureValues::from(architecture));
        let node = node.set_tags(Some(tags.collect())).build();
        self.state(|state| state.instances.push(node));
    }

    pub fn instance(
        &self,
        change: impl FnOnce(aws_sdk_ec2::types::builders::InstanceBuilder) -> aws_sdk_ec2::types::builders::InstanceBuilder,
    ) {
        let tag = Tag::builder().key("aws:eks:cluster-name").value("prod").build();
        let instance = Instance::builder().architecture(ArchitectureValues::X8664).tags(tag);
        self.state(|state| state.instances.push(change(instance).build()));
    }

    pub async fn plan(&self, event: &str) -> Result<Value, PlanError> {
        let plan = self.plan.handle(serde_json::from_str(event).unwrap()).await?;
        Ok(serde_json::to_value(plan).unwrap())
    }

    /// Returns the type and the message of the error that an event ends with.
    pub async fn refused(&self, event: &str) -> (String, String) {
        let error = Diagnostic::from(self.plan(event).await.unwrap_err());
        (error.error_type, error.error_message)
    }

    /// Returns the calls so far, DescribeImages once however many repositories it was asked for.
    pub fn calls(&self) -> Vec<&'static str> {
        let mut calls = self.state(|state| state.calls.take());
        calls.dedup_by(|next, last| next == last && *next == "DescribeImages");
        calls
    }

    pub fn count(&self, call: &str) -> usize {
        self.state(|state| state.calls.take().into_iter().filter(|made| *made == call).count())
    }

    pub fn batches(&self) -> Vec<usize> {
        let mut batches = self.state(|state| std::mem::take(&mut state.registry.batches));
        batches.sort_unstable();
        batches
    }
}
