//! The layers of an image, so many of them at once.

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use prefetch::manifest::Layer;

use super::transfer::{LAYERS_AT_ONCE, Transfer};
use crate::{
    containerd::{Containerd, SOCKET, write::Opened},
    failure::Failure,
    kubelet,
};

/// Bounds the layers of an image whose pull begins beside its download: for each that is being written containerd waits longer
/// and longer; 100 layers took containerd 1.7 45 seconds so.
const MAX_BESIDE: usize = 12;

impl<'a> Transfer<'a> {
    /// Downloads layers.
    ///
    /// # Errors
    /// The first that something is the matter with.
    pub async fn bring(&self, wanted: &[&'a Layer]) -> Result<(), Failure> {
        // Where the pull goes on meanwhile, none of them is to be its own.
        let is_beside = !self.may_have_pods.get() && wanted.len() <= MAX_BESIDE;
        let opened = if is_beside {
            try_join_all(wanted.iter().map(|layer| self.open(layer))).await?
        } else {
            Vec::new()
        };
        let opened = opened.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let written = stream::iter(wanted.iter().zip(opened).enumerate())
            .map(|(number, (layer, opened))| self.write_opened(layer, opened, number == 0 && is_beside))
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_for_each(|()| std::future::ready(Ok(())));
        let fetched = stream::iter(0..self.source.pace.max_connections())
            .map(|number| self.fetch(number))
            .buffer_unordered(self.source.pace.max_connections())
            .try_for_each(|()| std::future::ready(Ok(())));
        tokio::select! {
            written = written => written,
            fetched = fetched => fetched,
            () = self.adapt(wanted.len()) => Ok(()),
        }
    }

    /// Writes one layer, which is opened where it is not yet, and lets the pull begin after the first.
    async fn write_opened(
        &self,
        layer: &'a Layer,
        opened: Option<Opened>,
        lets_pull_begin: bool,
    ) -> Result<(), Failure> {
        let opened = match opened {
            Some(opened) => opened,
            None => self.open(layer).await?,
        };
        self.write(layer, opened).await?;
        if lets_pull_begin {
            self.begin_to_pull();
        }
        Ok(())
    }

    /// Adapts the number of connections, leaves the rest to containerd where it is as fast, and never returns.
    async fn adapt(&self, layers: usize) {
        self.source.pace.adapt(LAYERS_AT_ONCE.min(layers)).await;
        if !self.may_have_pods.get() && !self.source.pace.has_bandwidth() {
            self.is_leaving.set(true);
            self.has_come.notify_waiters();
        }
        std::future::pending::<()>().await;
    }

    /// Lets the pull begin beside the download, where still no pod can be.
    fn begin_to_pull(&self) {
        self.may_have_pods
            .set(self.may_have_pods.get() || kubelet::is_running());
        if !self.may_have_pods.get() {
            self.handover.begin_to_pull();
        }
    }

    /// Opens a layer for writing, unless the rest is left to containerd.
    async fn open(&self, layer: &Layer) -> Result<Opened, Failure> {
        if self.is_leaving.get() {
            return Ok(Opened::Busy);
        }
        // A connection of its own: containerd takes in little at a time of each.
        let containerd = Containerd::at(&self.source.context.host.path(SOCKET));
        let opened = containerd
            .write_layer(&layer.digest, layer.bytes, self.source.lease)
            .await;
        opened.map_err(|status| self.failure(&status))
    }
}
