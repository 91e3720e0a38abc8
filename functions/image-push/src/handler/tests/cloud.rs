//! The function with the services around it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::types::ImageStatus;
use aws_sdk_ssm::{
    Client,
    operation::send_command::{SendCommandInput, SendCommandOutput},
    types::Command,
};
use aws_smithy_mocks::{Rule as Mock, RuleMode, mock, mock_client};
use prefetch::{
    ecr::{self as registries, NewestImages, Registries},
    mocks::{
        Calls, Table, dynamodb,
        ecr::{self, CONFIGURATION, MANIFEST, RegistryImage, ecr},
        settings::usage_settings,
    },
    rule_images::RuleImages,
    sender::Sender,
    settings::Settings,
    usage::Usage,
};
use serde_json::{Value, json};

pub use prefetch::mocks::settings::settings;

use crate::handler::{ImagePush, PushError};

pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const CENTRAL: &str = "210987654321.dkr.ecr.eu-central-1.amazonaws.com";
pub const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

pub fn sending(expected: impl Fn(&SendCommandInput) -> bool + Send + Sync + 'static) -> Mock {
    mock!(Client::send_command).match_requests(expected).then_output(|| {
        let command = Command::builder().command_id("command-1").build();
        SendCommandOutput::builder().command(command).build()
    })
}

pub async fn answer(sends: &Mock, rules: &str, event: &str) -> Result<Value, PushError> {
    answer_with(sends, &Registry::default(), &settings(rules), event).await
}

pub async fn answer_with(
    sends: &Mock,
    registry: &Registry,
    settings: &Settings,
    event: &str,
) -> Result<Value, PushError> {
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [sends]));
    let event: Value = serde_json::from_str(event).unwrap();
    registry.hold(&event);
    let decision = image_push(sender, registry, settings).handle(event, now()).await?;
    Ok(serde_json::to_value(decision).unwrap())
}

pub fn image_push(sender: Sender, registry: &Registry, settings: &Settings) -> ImagePush {
    let ecr = registry.client();
    let newest = NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), settings);
    let registries = registries(ecr, registry.named, || registry.central_client());
    ImagePush {
        sender,
        images: rule_images(newest, &registry.table).and_central(settings, &registries),
        registries,
        boot: None,
        settings: settings.clone(),
    }
}

/// Makes the registries of this client's account, and those that are named, each by a client of its own.
pub fn registries(own: aws_sdk_ecr::Client, named: &str, client: impl Fn() -> aws_sdk_ecr::Client) -> Registries {
    let settings = usage_settings(named);
    let central = settings.central.into_iter().map(|central| {
        let registry = registries::Registry::central(client(), &central.account);
        (central, registry)
    });
    Registries::with((settings.registry, registries::Registry::own(own)), central.collect())
}

/// The table, and the calls to it.
pub type UsageTable = Arc<Mutex<(Calls, Table)>>;

pub fn rule_images(newest: NewestImages, table: &UsageTable) -> RuleImages {
    let client = dynamodb(table, |(calls, table)| (calls, table));
    RuleImages::with(newest, Usage::with_client(client, "outcomes", 14), REGISTRY.to_owned())
}

/// Holds what ECR says of the image that an event tells of, and the calls to it.
#[derive(Clone)]
pub struct Registry {
    pub manifest: &'static str,
    pub artifact: Option<&'static str>,
    pub tags: Vec<String>,
    pub status: ImageStatus,
    /// The text of the index.
    pub index: &'static str,
    pub is_there: bool,
    pub state: Arc<Mutex<(Calls, ecr::Registry)>>,
    /// Names the central registries.
    pub named: &'static str,
    /// The central registry of the event's account and Region.
    pub central: Arc<Mutex<(Calls, ecr::Registry)>>,
    /// The table that tells what nodes run.
    pub table: UsageTable,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            manifest: MANIFEST,
            artifact: Some(CONFIGURATION),
            tags: vec!["v1".to_owned()],
            status: ImageStatus::Active,
            index: r#"{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json"}]}"#,
            is_there: true,
            state: Arc::default(),
            named: "",
            central: Arc::default(),
            table: Arc::default(),
        }
    }
}

impl Registry {
    /// Has ECR know the image of an event, where it is there.
    fn hold(&self, event: &Value) {
        let detail = &event["detail"];
        let (Some(repository), Some(digest), true) = (
            detail["repository-name"].as_str(),
            detail["image-digest"].as_str(),
            self.is_there,
        ) else {
            return;
        };
        let image = RegistryImage {
            manifest: Some(self.manifest),
            artifact: self.artifact,
            status: self.status.clone(),
            ..RegistryImage::new(digest, &self.tags, 0)
        };
        let is_own = (&event["account"], &event["region"]) == (&json!("123456789012"), &json!("eu-central-1"));
        let (_, held) = &mut *if is_own { &self.state } else { &self.central }.lock().unwrap();
        held.account = event["account"].as_str().filter(|_| !is_own).map(str::to_owned);
        held.repositories.insert(repository.to_owned(), vec![image]);
        held.manifests.insert(digest.to_owned(), self.index.to_owned());
    }

    pub fn client(&self) -> aws_sdk_ecr::Client {
        ecr(&self.state, |(calls, registry)| (calls, registry))
    }

    fn central_client(&self) -> aws_sdk_ecr::Client {
        ecr(&self.central, |(calls, registry)| (calls, registry))
    }

    pub fn central_calls(&self) -> Vec<&'static str> {
        self.central.lock().unwrap().0.take()
    }

    pub fn fail(&self, call: &'static str, code: &'static str) {
        self.state.lock().unwrap().0.fail(call, 0, code);
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().0.take()
    }
}

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_794_793_474)
}
