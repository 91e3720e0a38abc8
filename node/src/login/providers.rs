//! The credential providers that kubelet is set to use.
