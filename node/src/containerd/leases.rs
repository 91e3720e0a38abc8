//! containerd's Leases service: what is held while it is made.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tonic::Status;

use super::Containerd;

/// What begins the name of every lease of ours; the id of the process follows.
pub const OURS: &str = "prefetch-images-";

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: String,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// Its labels, by which it may have an end.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Containerd {
    /// Lists all leases.
    pub async fn leases(&self) -> Result<Vec<Lease>, Status> {
        todo!()
    }

    /// Makes a lease that ends by itself after so long.
    pub async fn create_lease(&self, id: &str, expires_in: Duration) -> Result<(), Status> {
        todo!()
    }

    /// Removes a lease; with `sync` what nothing holds any more is gone afterwards. One that is not there is no failure.
    pub async fn remove_lease(&self, id: &str, sync: bool) -> Result<(), Status> {
        todo!()
    }
}
