//! containerd's Introspection service: what runs in it (api/services/introspection/v1/introspection.proto).

use std::collections::BTreeMap;

use tonic::Status;

use super::client::Containerd;

#[derive(Clone, PartialEq, prost::Message)]
struct PluginsRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginsResponse {
    #[prost(message, repeated, tag = "1")]
    plugins: Vec<Plugin>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Plugin {
    #[prost(string, tag = "2")]
    id: String,
    #[prost(btree_map = "string, string", tag = "5")]
    exports: BTreeMap<String, String>,
}

impl Containerd {
    /// Asks for the folder in which a snapshotter stores; none where it does not say.
    ///
    /// # Errors
    /// containerd's.
    pub async fn snapshotter_root(&self, snapshotter: &str) -> Result<Option<String>, Status> {
        let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
        let answer: PluginsResponse = self
            .ask(
                "/containerd.services.introspection.v1.Introspection/Plugins",
                PluginsRequest { filters },
            )
            .await?;
        let its = answer.plugins.into_iter().find(|plugin| plugin.id == snapshotter);
        Ok(its.and_then(|mut plugin| plugin.exports.remove("root")))
    }
}
