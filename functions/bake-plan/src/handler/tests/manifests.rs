//! Settings, digests and manifests of the tests.

use prefetch::mocks;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::settings::Settings;

pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const MIB: u64 = 1 << 20;
pub const DEFAULTS: &str = include_str!("../../../../../events/bake-plan.defaults.json");
pub const RULES: &str = r#"[{"name": "default", "repositories": ["team/app", "team/web"]}]"#;

/// Returns the settings of the tests, by variable.
pub fn setting(name: &str) -> &'static str {
    match name {
        "RULES" => RULES,
        "BAKE_DEFAULTS" => "{}",
        "BUILDER_PROFILE" => "eks-image-prefetch-builder",
        other => mocks::settings::setting(other).unwrap(),
    }
}

pub fn settings(rules: &str, defaults: &str) -> Settings {
    Settings::read(|name| {
        Some(match name {
            "RULES" => rules.to_owned(),
            "BAKE_DEFAULTS" => defaults.to_owned(),
            other => setting(other).to_owned(),
        })
    })
    .unwrap()
}

pub fn cluster() -> Value {
    let event: Value = serde_json::from_str(DEFAULTS).unwrap();
    event["cluster"].clone()
}

pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// Returns the manifest of an image with these layers, in MiB.
pub fn single(layers: &[(&str, u64)]) -> Value {
    let layers = layers
        .iter()
        .map(|(name, mib)| json!({"digest": digest(name), "size": mib * MIB}));
    json!({"config": {"digest": digest("config"), "size": 0}, "layers": layers.collect::<Vec<_>>()})
}

/// Returns the manifest of an index of images with one layer each, by architecture and MiB, and an attestation.
pub fn index(images: &[(&str, u64)]) -> Value {
    let child = |(architecture, mib): &(&str, u64)| {
        let os = if *architecture == "unknown" { "unknown" } else { "linux" };
        json!({"digest": child(architecture, *mib), "platform": {"os": os, "architecture": architecture}})
    };
    let attestation = json!({
        "digest": digest("attestation"), "platform": {"os": "unknown", "architecture": "unknown"},
    });
    let children = images.iter().map(child).chain([attestation]);
    json!({"manifests": children.collect::<Vec<_>>()})
}

pub fn child(architecture: &str, mib: u64) -> String {
    digest(&format!("{architecture} {mib}"))
}
