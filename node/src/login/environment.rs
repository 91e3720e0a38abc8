//! The environment that the units of kubelet and containerd have: proxies above all.

use std::collections::BTreeMap;

use crate::host::Host;

/// Reads the environment that kubelet has, and under it containerd's, from their units on this host.
#[must_use]
pub fn of_units(host: &Host) -> BTreeMap<String, String> {
    todo!()
}
