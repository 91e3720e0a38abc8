//! A registry, as ECR answers of it.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::{Client, types::ImageFailureCode};

use crate::{
    ecr::{ImagesError, Newest, NewestImages},
    image::Image,
    mocks::{
        self, Calls,
        ecr::{INDEX, ecr},
        settings::settings,
    },
    rule::Rule,
};

/// Holds what ECR refuses to give: all manifests by an error's code, or each by a failure's.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    All(&'static str),
    One(ImageFailureCode),
}

/// An image: its digest's number, the hour of its push, its tags, and its manifest where it is asked for.
pub(super) type RegistryImage = (usize, i64, &'static [&'static str], Option<&'static str>);

/// The newest images of rules, and the rules.
pub(super) struct Rules(pub(super) NewestImages, pub(super) Vec<Rule>);

impl Rules {
    pub(super) fn rule(&self, name: &str) -> &Rule {
        self.1.iter().find(|rule| rule.name == name).unwrap()
    }

    pub(super) async fn whole(&self, rule: &str) -> Result<Vec<Image>, ImagesError> {
        let newest = self.0.known_of_rule(self.rule(rule), SystemTime::UNIX_EPOCH).await;
        newest.and_then(Newest::whole)
    }

    pub(super) async fn known(&self, rule: &str, seconds: u64) -> Newest {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        self.0.known_of_rule(self.rule(rule), now).await.unwrap()
    }
}

/// Holds the images that each repository has, and what ECR answers of them.
#[derive(Default)]
struct State {
    images: Vec<RegistryImage>,
    calls: Calls,
    ecr: mocks::ecr::Registry,
}

impl State {
    /// Puts the images into these repositories, and into no other.
    fn fill(&mut self, repositories: Vec<String>) {
        let images: Vec<_> = self.images.iter().map(image).collect();
        self.ecr.repositories = repositories.into_iter().map(|name| (name, images.clone())).collect();
        let manifests = self
            .images
            .iter()
            .filter_map(|(number, .., text)| Some((digest(*number), (*text)?.to_owned())));
        self.ecr.manifests = manifests.collect();
    }
}

fn image((number, hour, tags, index): &RegistryImage) -> mocks::ecr::RegistryImage {
    let image = mocks::ecr::RegistryImage::new(&digest(*number), tags, hour * 3600);
    match index {
        Some(text) if text.contains("manifests") => mocks::ecr::RegistryImage {
            manifest: Some(INDEX),
            artifact: None,
            ..image
        },
        _ => image,
    }
}

/// A registry in which each repository has the same images.
pub(super) struct Registry(Arc<Mutex<State>>);

impl Registry {
    pub(super) fn of(images: &[RegistryImage]) -> Self {
        let registry = Self(Arc::default());
        registry.state().images = images.to_vec();
        registry.state().fill(vec!["app".to_owned()]);
        registry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Gives each of these repositories the images, in the place of those that there are.
    pub(super) fn set_repositories(&self, names: impl IntoIterator<Item: ToString>) {
        let names = names.into_iter().map(|name| name.to_string()).collect();
        self.state().fill(names);
    }

    /// Gives each repository these images, in the place of those that it has.
    pub(super) fn set_images(&self, images: &[RegistryImage]) {
        let mut state = self.state();
        state.images = images.to_vec();
        let names = state.ecr.repositories.keys().cloned().collect();
        state.fill(names);
    }

    pub(super) fn set_page(&self, images: usize) {
        self.state().ecr.page = Some(images);
    }

    /// Throttles those DescribeImages of the next hundreds that a function tells by their number, from 0.
    pub(super) fn throttle(&self, is_throttled: fn(usize) -> bool) {
        let mut before = 0;
        for call in 0..1500 {
            if is_throttled(call) {
                self.state().calls.fail("DescribeImages", before, "ThrottlingException");
                before = 0;
            } else {
                before += 1;
            }
        }
    }

    pub(super) fn refuse(&self, refusal: Option<Refusal>) {
        self.state().ecr.refusal = match refusal {
            Some(Refusal::One(code)) => Some(code),
            Some(Refusal::All(code)) => {
                self.state().calls.fail("BatchGetImage", 0, code);
                None
            }
            None => None,
        };
    }

    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.state().calls.take()
    }

    pub(super) fn newest(&self, rules: &str) -> Rules {
        let settings = settings(rules);
        let newest = NewestImages::with_client(self.client(), "eu-central-1".to_owned(), &settings);
        Rules(newest, settings.rules)
    }

    pub(super) fn client(&self) -> Client {
        ecr(&self.0, |state| (&mut state.calls, &mut state.ecr))
    }
}

pub(super) fn digest(number: usize) -> String {
    format!("sha256:{number:064}")
}

/// Names as `repository:tag`.
pub(super) fn names(images: &[Image]) -> Vec<String> {
    images
        .iter()
        .map(|image| format!("{}:{}", image.repository(), image.tag().unwrap()))
        .collect()
}
