//! The handover from the download of an image's layers to the pull after it.

use std::{cell::Cell, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::host::Host;

/// Bounds the time of unpacking from which on it is told.
const LONG: Duration = Duration::from_secs(10);
/// Names the places of the program that containerd unpacks with, if it is there (containerd, `pkg/archive/compression`).
const UNPIGZ: [&str; 3] = ["/usr/bin/unpigz", "/usr/local/bin/unpigz", "/bin/unpigz"];

/// Tells whoever pulls an image how far the download of its layers is.
#[derive(Debug, Default)]
pub struct Handover {
    pub(super) is_waiting: Cell<bool>,
    may_pull: Cell<bool>,
    /// The time that the layers took, and the moment when they were all there.
    downloaded: Cell<Option<(Duration, Instant)>>,
    /// True where the download has just ended, and the pull begins to move.
    has_ended: Cell<bool>,
    changed: Notify,
}

impl Handover {
    /// Tells whether nothing need have moved since the last time: others have their turn, or the pull has its own only now.
    #[must_use]
    pub fn excuses_quiet(&self) -> bool {
        self.has_ended.replace(false) || self.is_waiting.get()
    }

    /// Notes that the download has ended, and whether it brought all the layers.
    pub(super) fn end(&self, is_whole: bool, began: Instant) {
        self.has_ended.set(true);
        if is_whole {
            self.downloaded.set(Some((began.elapsed(), Instant::now())));
        }
    }

    /// Tells people what the pull was waiting for, where it was mostly its unpacking.
    #[must_use]
    pub fn words_of_unpacking(&self, host: &Host) -> Option<String> {
        let (downloading, at) = self.downloaded.get()?;
        let unpacking = at.elapsed();
        if unpacking < LONG || unpacking < downloading {
            return None;
        }
        let has_unpigz = UNPIGZ.iter().any(|path| host.path(path).exists());
        let cure = if has_unpigz {
            ""
        } else {
            "; there is no unpigz (package pigz), which containerd would use"
        };
        let (unpacking, downloading) = (unpacking.as_secs(), downloading.as_secs());
        Some(format!(
            "it took {unpacking} s to unpack what took {downloading} s to download{cure}"
        ))
    }

    /// Lets the pull begin.
    pub fn begin_to_pull(&self) {
        self.may_pull.set(true);
        self.changed.notify_waiters();
    }

    /// Returns once the pull may begin.
    pub async fn may_pull(&self) {
        let changed = self.changed.notified();
        if !self.may_pull.get() {
            changed.await;
        }
    }
}
