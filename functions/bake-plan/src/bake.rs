//! Bakes: one for each architecture, all that the state machine makes a builder and a snapshot of.

use std::{collections::BTreeMap, fmt::Write};

use prefetch::{
    bake::{
        Architecture, MAX_GIB,
        input::{BakeOptions, Input, InputError},
    },
    command::{Handling, images_of_commands, parameters},
    fields::FieldError,
    image::{Image, is_same_registry},
    manifest::Content,
    settings::Settings as Shared,
};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{error::PlanError, input::Cluster, network::NetworkInterface, settings::Settings, volume::needed_gib};

/// Bounds the images that the snapshot's tags name: a resource has 50 tags (EC2 user guide), some of which say other things.
const MAX_TAGS: usize = 35;
/// Bounds the characters of a tag's value (EC2 user guide).
const MAX_TAG_VALUE: usize = 256;

/// All that the state machine bakes.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// One for each architecture.
    pub bakes: Vec<Bake>,
    /// The manner in which the state machine goes about it.
    #[serde(flatten)]
    pub manner: BakeOptions,
}

/// Describes the bake for one architecture.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    architecture: Architecture,
    ami_parameter: String,
    instance_type: String,
    instance_profile: InstanceProfile,
    network_interface: NetworkInterface,
    volume: Ebs,
    images: Vec<BakedImage>,
    left_off: Vec<Image>,
    commands: Vec<Command>,
    tags: Vec<Tag>,
    fingerprint: String,
    fast_snapshot_restore_zones: Vec<String>,
}

/// An instance profile, as RunInstances takes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
enum InstanceProfile {
    Name(String),
    Arn(String),
}

/// A volume, as RunInstances takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs {
    volume_size: u32,
    volume_type: &'static str,
    delete_on_termination: bool,
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key_id: Option<String>,
}

/// An image that is baked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BakedImage {
    image: Image,
    /// Its compressed size on this architecture.
    bytes: u64,
    /// True where the input names it, and no rule found it.
    named: bool,
    /// True where a rule found it, of a registry that was not asked: where the builder cannot pull it, it is left off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    elsewhere: bool,
}

/// A command, as SendCommand takes it.
#[derive(Debug, Serialize)]
struct Command {
    comment: String,
    parameters: BTreeMap<String, Vec<String>>,
}

/// A tag, as EC2 takes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

/// The images of one architecture.
#[derive(Debug, Default)]
pub struct Chosen<'a> {
    /// Those that are baked, each with what it is made of.
    pub images: Vec<(&'a Image, &'a Content)>,
    /// Those that were found by rules and are not.
    pub left_off: Vec<Image>,
}

impl Bake {
    /// Plans the bake for an architecture.
    ///
    /// # Errors
    /// [`PlanError::BadInput`] where no volume is large enough.
    pub fn new(
        architecture: Architecture,
        chosen: Chosen<'_>,
        input: &Input,
        cluster: &Cluster,
        network_interface: NetworkInterface,
        settings: &Settings,
    ) -> Result<Self, PlanError> {
        let volume = volume(&chosen, input, settings)?;
        let named = !input.images.is_empty();
        let images: Vec<BakedImage> = chosen
            .images
            .iter()
            .map(|(image, content)| BakedImage {
                image: (*image).clone(),
                bytes: content.bytes(),
                named,
                elsewhere: !named && !is_same_registry(image.registry(), &settings.registry),
            })
            .collect();
        Ok(Self {
            architecture,
            ami_parameter: input.ami_parameter_for(architecture, &cluster.version),
            instance_type: input.instance_type_for(architecture).to_owned(),
            instance_profile: instance_profile(input, settings),
            network_interface,
            left_off: chosen.left_off,
            commands: commands(architecture, &images, &settings.shared),
            tags: tags(&images),
            fingerprint: fingerprint(architecture, &images, &volume, &input.zones),
            volume,
            images,
            fast_snapshot_restore_zones: input.zones.clone(),
        })
    }
}

/// Makes a volume that is large enough for images, or as large as the input says.
fn volume(chosen: &Chosen<'_>, input: &Input, settings: &Settings) -> Result<Ebs, PlanError> {
    let contents: Vec<&Content> = chosen.images.iter().map(|(_, content)| *content).collect();
    let needed = needed_gib(&contents, settings.shared.image_gc_high_threshold);
    let volume_size = match input.volume_gib {
        Some(size) => size,
        None => u32::try_from(needed)
            .ok()
            .filter(|size| *size <= MAX_GIB)
            .ok_or_else(|| {
                let accepted = format!("fewer: they need a volume of {needed} GiB, and the largest has {MAX_GIB}");
                too_many(input, chosen.images.len(), accepted)
            })?,
    };
    Ok(Ebs {
        volume_size,
        volume_type: "gp3",
        delete_on_termination: true,
        encrypted: input.encrypted,
        kms_key_id: input.kms_key.clone(),
    })
}

/// Refuses images for their number, by the field that names them.
pub fn too_many(input: &Input, images: usize, accepted: String) -> PlanError {
    let field = if input.images.is_empty() { "rules" } else { "images" };
    let error = FieldError::new(field, Some(json!(format!("{images} images"))), accepted);
    PlanError::TooMany(InputError::from(vec![error]).to_string())
}

fn instance_profile(input: &Input, settings: &Settings) -> InstanceProfile {
    let profile = input.profile.as_ref().unwrap_or(&settings.profile).clone();
    if profile.starts_with("arn:") {
        InstanceProfile::Arn(profile)
    } else {
        InstanceProfile::Name(profile)
    }
}

/// Writes the commands that bring the images. Their comments are none of a job's: what becomes of them is the state
/// machine's business alone.
fn commands(architecture: Architecture, images: &[BakedImage], settings: &Shared) -> Vec<Command> {
    let images: Vec<Image> = images.iter().map(|baked| baked.image.clone()).collect();
    let of_commands: Vec<&[Image]> = images_of_commands(&images).collect();
    let of = of_commands.len();
    let commands = of_commands.into_iter().enumerate();
    let handling = Handling {
        is_starting: true,
        ..Handling::default()
    };
    commands
        .map(|(place, images)| Command {
            comment: format!("bake-snapshot {architecture} {}/{of}", place + 1),
            parameters: parameters(settings, handling, images).into_iter().collect(),
        })
        .collect()
}

/// Writes the tags that tell what is in a snapshot: as many images as fit.
fn tags(images: &[BakedImage]) -> Vec<Tag> {
    let names = images.iter().map(|baked| baked.image.name());
    let fitting = names.filter(|name| name.len() <= MAX_TAG_VALUE).take(MAX_TAGS);
    fitting
        .zip(1..)
        .map(|(value, place)| Tag {
            key: format!("bake-snapshot/image-{place:02}"),
            value,
        })
        .collect()
}

/// Digests all that decides what is in a snapshot and how it is used, but the AMI: where it is the same, nothing changed.
fn fingerprint(architecture: Architecture, images: &[BakedImage], volume: &Ebs, zones: &[String]) -> String {
    // ECR gives tags and repositories in no order.
    let mut images: Vec<&Image> = images.iter().map(|baked| &baked.image).collect();
    images.sort_unstable();
    let decides = json!({
        "architecture": architecture, "images": images, "volumeSizeGiB": volume.volume_size,
        "encrypted": volume.encrypted, "kmsKeyId": volume.kms_key_id, "fastSnapshotRestoreZones": zones,
    });
    let digest = Sha256::digest(decides.to_string());
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    })
}
