//! containerd's Leases service: what is held while it is made (api/services/leases/v1/leases.proto).

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use tonic::Status;

use super::client::{Containerd, Nothing, Timestamp, unless_gone};

/// Begins the name of every lease of ours; the id of the process follows.
pub const OURS: &str = "prefetch-images-";
/// Names the label by which a lease has an end (containerd, docs/garbage-collection.md).
pub const EXPIRE: &str = "containerd.io/gc.expire";

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: String,
    /// The moment when it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// Its labels, by which it may have an end.
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    created_at: Option<Timestamp>,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    leases: Vec<LeaseMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "2")]
    sync: bool,
}

impl Containerd {
    /// Lists all leases.
    ///
    /// # Errors
    /// containerd's.
    pub async fn leases(&self) -> Result<Vec<Lease>, Status> {
        let answer: ListResponse = self
            .ask("/containerd.services.leases.v1.Leases/List", ListRequest {})
            .await?;
        let lease = |message: LeaseMessage| Lease {
            id: message.id,
            created_at: message.created_at.and_then(Timestamp::moment),
            labels: message.labels,
        };
        Ok(answer.leases.into_iter().map(lease).collect())
    }

    /// Makes a lease that ends by itself after so long.
    ///
    /// # Errors
    /// containerd's; `AlreadyExists` where there is one.
    pub async fn create_lease(&self, id: &str, expires_in: Duration) -> Result<(), Status> {
        let end = (Utc::now() + expires_in).to_rfc3339_opts(SecondsFormat::Secs, true);
        let request = CreateRequest {
            id: id.to_owned(),
            labels: BTreeMap::from([(EXPIRE.to_owned(), end)]),
        };
        self.ask("/containerd.services.leases.v1.Leases/Create", request)
            .await
            .map(|Nothing {}| ())
    }

    /// Removes a lease; with `sync` what nothing holds any more is gone afterwards. One that is not there is no failure.
    ///
    /// # Errors
    /// containerd's.
    pub async fn remove_lease(&self, id: &str, sync: bool) -> Result<(), Status> {
        let request = DeleteRequest {
            id: id.to_owned(),
            sync,
        };
        unless_gone(self.ask("/containerd.services.leases.v1.Leases/Delete", request).await)
    }
}
