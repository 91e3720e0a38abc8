//! containerd's Content service: blobs, and what is being written of them (api/services/content/v1/content.proto).

use std::collections::{BTreeMap, HashMap};

use tonic::Status;

use super::client::{Containerd, FieldMask, Nothing};

/// A blob that containerd holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// In bytes.
    pub size: u64,
    /// Its labels: garbage collection follows those of them that begin with `containerd.io/gc.ref`.
    pub labels: BTreeMap<String, String>,
}

/// A blob that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// The writer's own word for it, which ends with `-sha256:…` for a layer.
    pub reference: String,
    /// Bytes that are there.
    pub offset: u64,
    /// Bytes that are expected; 0 where nobody knows.
    pub total: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Info {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    size: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    info: Vec<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateRequest {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
    #[prost(message, optional, tag = "2")]
    update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadRequest {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadResponse {
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesResponse {
    #[prost(message, repeated, tag = "1")]
    statuses: Vec<WriteStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteStatus {
    #[prost(string, tag = "3")]
    reference: String,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
}

impl Containerd {
    /// Lists all blobs by digest.
    ///
    /// # Errors
    /// containerd's.
    pub async fn blobs(&self) -> Result<HashMap<String, Blob>, Status> {
        let parts: Vec<ListResponse> = self
            .list("/containerd.services.content.v1.Content/List", ListRequest::default())
            .await?;
        let blobs = parts.into_iter().flat_map(|part| part.info);
        Ok(blobs.map(|info| (info.digest.clone(), info.into())).collect())
    }

    /// Looks at a blob.
    ///
    /// # Errors
    /// containerd's; `NotFound` where there is no such blob.
    pub async fn blob(&self, digest: &str) -> Result<Blob, Status> {
        let request = InfoRequest {
            digest: digest.to_owned(),
        };
        let answer: InfoResponse = self
            .ask("/containerd.services.content.v1.Content/Info", request)
            .await?;
        Ok(answer.info.unwrap_or_default().into())
    }

    /// Reads a blob of at most so many bytes.
    ///
    /// # Errors
    /// containerd's; `OutOfRange` for a longer one.
    pub async fn read_blob(&self, digest: &str, at_most: usize) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: i64::try_from(at_most).unwrap_or(i64::MAX - 1) + 1,
        };
        let parts: Vec<ReadResponse> = self
            .list("/containerd.services.content.v1.Content/Read", request)
            .await?;
        let data = parts.into_iter().flat_map(|part| part.data).collect::<Vec<u8>>();
        if data.len() > at_most {
            return Err(Status::out_of_range(format!("{digest} is longer than {at_most} bytes")));
        }
        Ok(data)
    }

    /// Sets labels of a blob, or removes those with an empty value, and leaves the others as they are.
    ///
    /// # Errors
    /// containerd's; `NotFound` where there is no such blob.
    pub async fn label_blob(&self, digest: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
        let request = UpdateRequest {
            info: Some(Info {
                digest: digest.to_owned(),
                labels: labels.clone(),
                ..Info::default()
            }),
            update_mask: Some(FieldMask {
                paths: labels.keys().map(|key| format!("labels.{key}")).collect(),
            }),
        };
        self.ask("/containerd.services.content.v1.Content/Update", request)
            .await
            .map(|Nothing {}| ())
    }

    /// Lists what is being written.
    ///
    /// # Errors
    /// containerd's.
    pub async fn ingests(&self) -> Result<Vec<Ingest>, Status> {
        let answer: ListStatusesResponse = self
            .ask(
                "/containerd.services.content.v1.Content/ListStatuses",
                ListRequest::default(),
            )
            .await?;
        let ingest = |status: WriteStatus| Ingest {
            reference: status.reference,
            offset: positive(status.offset),
            total: positive(status.total),
        };
        Ok(answer.statuses.into_iter().map(ingest).collect())
    }
}

impl From<Info> for Blob {
    fn from(info: Info) -> Self {
        Self {
            size: positive(info.size),
            labels: info.labels,
        }
    }
}

fn positive(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}
