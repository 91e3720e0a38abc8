//! The stack's repository: what is there already, and how the rest gets there.

use std::collections::BTreeSet;

use aws_sdk_ecr::{
    Client,
    error::SdkError,
    operation::{
        batch_check_layer_availability::BatchCheckLayerAvailabilityError,
        complete_layer_upload::CompleteLayerUploadError, initiate_layer_upload::InitiateLayerUploadError,
        put_image::PutImageError, upload_layer_part::UploadLayerPartError,
    },
    primitives::Blob as Bytes,
    types::LayerAvailability,
};
use thiserror::Error;

use crate::artifact::{Artifact, Blob, MEDIA_TYPE};

/// Bounds a part of an upload where ECR does not say (ECR API reference, UploadLayerPart: up to 20 MiB).
const PART: usize = 10 << 20;

/// A repository of this account and Region.
#[derive(Debug)]
pub struct Repository {
    /// ECR's client.
    pub ecr: Client,
    /// The host under which nodes reach it.
    pub registry: String,
    /// The repository's name.
    pub name: String,
}

/// Tells why the artifact could not be pushed.
#[derive(Debug, Error)]
pub enum PushError {
    /// ECR did not tell what is there.
    #[error("it could not be told which blobs the repository {0} has")]
    Check(String, #[source] Box<SdkError<BatchCheckLayerAvailabilityError>>),
    /// An upload was not begun.
    #[error("no blob could be uploaded to the repository {0}")]
    Begin(String, #[source] Box<SdkError<InitiateLayerUploadError>>),
    /// A part was not taken.
    #[error("the blob {0} could not be uploaded")]
    Part(String, #[source] Box<SdkError<UploadLayerPartError>>),
    /// The parts did not become a blob.
    #[error("the blob {0} could not be completed")]
    Complete(String, #[source] Box<SdkError<CompleteLayerUploadError>>),
    /// The manifest was not taken.
    #[error("the manifest {0} could not be put")]
    Put(String, #[source] Box<SdkError<PutImageError>>),
    /// An answer lacks the upload's id.
    #[error("ECR named no upload")]
    NoUpload,
}

impl Repository {
    /// Pushes the artifact; what is there already is left as it is.
    ///
    /// # Errors
    /// [`PushError`] where ECR does not take it.
    pub async fn push(&self, artifact: &Artifact) -> Result<(), PushError> {
        let there = self.available(&artifact.blobs).await?;
        for blob in &artifact.blobs {
            if !there.contains(&blob.digest) {
                self.upload(blob).await?;
            }
        }
        let put = self.ecr.put_image().repository_name(&self.name);
        let put = put
            .image_manifest(&artifact.manifest)
            .image_manifest_media_type(MEDIA_TYPE);
        match put.image_tag(&artifact.tag).image_digest(&artifact.digest).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_there(&error) => Ok(()),
            Err(error) => Err(PushError::Put(artifact.digest.clone(), Box::new(error))),
        }
    }

    /// Returns the digests of those blobs that the repository has.
    async fn available(&self, blobs: &[Blob]) -> Result<BTreeSet<String>, PushError> {
        let digests = blobs.iter().map(|blob| blob.digest.clone()).collect();
        let request = self.ecr.batch_check_layer_availability().repository_name(&self.name);
        let answer = request.set_layer_digests(Some(digests)).send().await;
        let answer = answer.map_err(|error| PushError::Check(self.name.clone(), Box::new(error)))?;
        let layers = answer.layers().iter();
        let available = layers.filter(|layer| layer.layer_availability() == Some(&LayerAvailability::Available));
        Ok(available
            .filter_map(|layer| layer.layer_digest().map(str::to_owned))
            .collect())
    }

    /// Uploads a blob in parts of the size that ECR names.
    async fn upload(&self, blob: &Blob) -> Result<(), PushError> {
        let begun = self
            .ecr
            .initiate_layer_upload()
            .repository_name(&self.name)
            .send()
            .await;
        let begun = begun.map_err(|error| PushError::Begin(self.name.clone(), Box::new(error)))?;
        let upload = begun.upload_id().ok_or(PushError::NoUpload)?;
        self.upload_parts(blob, upload, begun.part_size()).await?;
        let request = self.ecr.complete_layer_upload().repository_name(&self.name);
        match request.upload_id(upload).layer_digests(&blob.digest).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_uploaded(&error) => Ok(()),
            Err(error) => Err(PushError::Complete(blob.digest.clone(), Box::new(error))),
        }
    }

    /// Uploads the parts of a blob, one after the other.
    async fn upload_parts(&self, blob: &Blob, upload: &str, size: Option<i64>) -> Result<(), PushError> {
        let size = size
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size > 0);
        let mut first: i64 = 0;
        for part in blob.content.chunks(size.unwrap_or(PART).min(PART)) {
            let last = first + i64::try_from(part.len()).unwrap_or(i64::MAX) - 1;
            let request = self
                .ecr
                .upload_layer_part()
                .repository_name(&self.name)
                .upload_id(upload);
            let request = request
                .part_first_byte(first)
                .part_last_byte(last)
                .layer_part_blob(Bytes::new(part));
            let sent = request.send().await;
            sent.map_err(|error| PushError::Part(blob.digest.clone(), Box::new(error)))?;
            first = last + 1;
        }
        Ok(())
    }
}

/// Returns true where the repository has this very manifest under this tag, which is made of its digest.
///
/// ECR says of an immutable tag that it exists, whatever the digest (aws/containers-roadmap#2179).
fn is_there(error: &SdkError<PutImageError>) -> bool {
    error
        .as_service_error()
        .is_some_and(|error| error.is_image_already_exists_exception() || error.is_image_tag_already_exists_exception())
}

fn is_uploaded(error: &SdkError<CompleteLayerUploadError>) -> bool {
    let error = error.as_service_error();
    error.is_some_and(CompleteLayerUploadError::is_layer_already_exists_exception)
}
