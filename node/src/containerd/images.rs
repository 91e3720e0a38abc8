//! containerd's Images service: names, what they stand for, and their labels (api/services/images/v1/images.proto).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use prefetch::image::MANIFEST_MEDIA_TYPES;
use tonic::Status;

use super::client::{Containerd, FieldMask, Timestamp, unless_gone};

/// Describes what a name stands for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Descriptor {
    /// The media type that containerd was given with it: it may be wrong, even `text/html`.
    #[prost(string, tag = "1")]
    pub media_type: String,
    /// `sha256:…`
    #[prost(string, tag = "2")]
    pub digest: String,
    /// In bytes.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// A name in containerd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// `registry/repository:tag`, `registry/repository@sha256:…`, or `sha256:…` by which CRI alone knows the image.
    pub name: String,
    /// Its target.
    pub target: Descriptor,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The moment when it was made; a pull that writes it anew leaves this as it is.
    pub created_at: Option<DateTime<Utc>>,
}

impl Name {
    /// Tells whether it stands for a digest as kubelet finds it: with the media type of a manifest or an index. A mirror's page of
    /// HTML makes a name of type `text/html`, which CRI does not know.
    #[must_use]
    pub fn is_right(&self, digest: &str) -> bool {
        self.target.digest == digest && MANIFEST_MEDIA_TYPES.contains(&self.target.media_type.as_str())
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "3")]
    target: Option<Descriptor>,
    #[prost(message, optional, tag = "7")]
    created_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

/// The answer to a request that makes or changes a name.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    sync: bool,
}

impl Containerd {
    /// Lists names that match any of the filters (containerd's syntax), all for none.
    ///
    /// # Errors
    /// containerd's.
    pub async fn names(&self, filters: &[String]) -> Result<Vec<Name>, Status> {
        let filters = filters.to_vec();
        let answer: ListResponse = self
            .ask("/containerd.services.images.v1.Images/List", ListRequest { filters })
            .await?;
        Ok(answer.images.into_iter().map(Name::from).collect())
    }

    /// Makes a name, and returns it as it was made.
    ///
    /// # Errors
    /// containerd's; `AlreadyExists` where there is one.
    pub async fn create_name(&self, name: &Name) -> Result<Name, Status> {
        let image = Some(Image::from(name));
        let answer: ImageResponse = self
            .ask("/containerd.services.images.v1.Images/Create", CreateRequest { image })
            .await?;
        Ok(answer.image.unwrap_or_default().into())
    }

    /// Sets labels of a name, or removes those with an empty value, and nothing else of it; returns it as it is then. `target`
    /// has to be what it stands for, for containerd panics without one (2.1.9).
    ///
    /// # Errors
    /// containerd's; `NotFound` where there is no such name.
    pub async fn label_name(&self, name: &Name, labels: &BTreeMap<String, String>) -> Result<Name, Status> {
        let image = Image {
            labels: labels.clone(),
            ..Image::from(name)
        };
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        self.update(image, paths).await
    }

    /// Makes a name stand for another target, with these labels alone, and returns it as it is then.
    ///
    /// # Errors
    /// containerd's; `NotFound` where there is no such name.
    pub async fn move_name(&self, name: &Name) -> Result<Name, Status> {
        self.update(Image::from(name), vec!["target".to_owned(), "labels".to_owned()])
            .await
    }

    async fn update(&self, image: Image, paths: Vec<String>) -> Result<Name, Status> {
        let request = UpdateRequest {
            image: Some(image),
            update_mask: Some(FieldMask { paths }),
        };
        let answer: ImageResponse = self
            .ask("/containerd.services.images.v1.Images/Update", request)
            .await?;
        Ok(answer.image.unwrap_or_default().into())
    }

    /// Removes a name; with `sync` what it alone held is gone afterwards. A name that is not there is no failure.
    ///
    /// # Errors
    /// containerd's.
    pub async fn remove_name(&self, name: &str, sync: bool) -> Result<(), Status> {
        let request = DeleteRequest {
            name: name.to_owned(),
            sync,
        };
        unless_gone(self.ask("/containerd.services.images.v1.Images/Delete", request).await)
    }
}

impl From<Image> for Name {
    fn from(image: Image) -> Self {
        Self {
            name: image.name,
            target: image.target.unwrap_or_default(),
            labels: image.labels,
            created_at: image.created_at.and_then(Timestamp::moment),
        }
    }
}

impl From<&Name> for Image {
    fn from(name: &Name) -> Self {
        Self {
            name: name.name.clone(),
            labels: name.labels.clone(),
            target: Some(name.target.clone()),
            created_at: None, // containerd's own matter
        }
    }
}
