//! Names and labels: that an image is found by digest and by tag, and that what is ours is known to be.

/// On every name that a pull of ours made: when (RFC 3339, to the microsecond).
pub const PULLED_AT: &str = "prefetch-images/pulled-at";
/// Spares an image from kubelet's garbage collection.
pub const PINNED: &str = "io.cri-containerd.pinned";
