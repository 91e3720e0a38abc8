//! The limits below which a node stays, counted as kubelet counts.

use crate::{
    file_system::{Need, Usage},
    kubelet::{Settings, Threshold},
};

/// The limits below which a node stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Strictly below so many percent used, as kubelet rounds: `100 - floor(available * 100 / capacity)`. 100 is no limit.
    pub percent: u8,
    /// Kubelet's own.
    pub kubelet: Settings,
}

impl Limits {
    /// Tells why so much more does not fit on a file system, in words for people; none where it does. `pinned` are the bytes of
    /// images there that kubelet can never get back, with those that are to be pinned.
    #[must_use]
    pub fn refusal(&self, usage: Usage, need: Need, pinned: u64) -> Option<String> {
        let used = usage.capacity.saturating_sub(usage.available);
        let limit = self
            .refusal_by_bytes(usage, need)
            .or_else(|| self.refusal_by_pins(usage, pinned));
        let refusal = limit.map(|limit| {
            let pinned = match pinned {
                0 => String::new(),
                pinned => format!(", {pinned} of them by pinned images, which never come back"),
            };
            match need.bytes {
                0 => format!("{used} of {} bytes are used{pinned}; {limit}", usage.capacity),
                bytes => format!(
                    "it needs {bytes} bytes, and {used} of {} are used{pinned}; {limit}",
                    usage.capacity
                ),
            }
        });
        refusal.or_else(|| self.refusal_by_inodes(usage, need))
    }

    fn refusal_by_bytes(&self, usage: Usage, need: Need) -> Option<String> {
        let after = usage.after(need);
        let percent = after.percent()?;
        let threshold = self.percent.min(self.kubelet.image_gc_high_threshold_percent);
        if threshold < 100 && percent >= threshold {
            return Some(format!("the threshold is {threshold} %"));
        }
        let kubelet = &self.kubelet;
        let evictions = [
            ("imagefs.available", kubelet.image_fs_available, true),
            ("nodefs.available", kubelet.node_fs_available, self.is_nodes_own(usage)),
        ];
        for (signal, threshold, counts) in evictions {
            let left = threshold.of(usage.capacity);
            if counts && after.available < left {
                return Some(format!("kubelet evicts pods below {left} bytes ({signal})"));
            }
        }
        (need.bytes > usage.available).then(|| "that is more than there is".to_owned())
    }

    fn is_nodes_own(&self, usage: Usage) -> bool {
        self.kubelet.node_fs == Some(usage.device)
    }

    /// Refuses where pinned images alone come to what kubelet's collection goes down to: from then on it would fail for good.
    fn refusal_by_pins(&self, usage: Usage, pinned: u64) -> Option<String> {
        let low = self.kubelet.image_gc_low_threshold_percent;
        let collects = self.kubelet.image_gc_high_threshold_percent < 100;
        let is_too_much = u128::from(pinned) * 100 >= u128::from(usage.capacity) * u128::from(low);
        (pinned > 0 && usage.capacity > 0 && collects && is_too_much)
            .then(|| format!("kubelet's garbage collection goes down to {low} %, and would never get there"))
    }

    fn refusal_by_inodes(&self, usage: Usage, need: Need) -> Option<String> {
        let kubelet = &self.kubelet;
        let node = if self.is_nodes_own(usage) {
            kubelet.node_fs_inodes_free
        } else {
            Threshold::default()
        };
        let left = kubelet.image_fs_inodes_free.stricter(node).of(usage.inodes);
        let after = usage.after(need);
        let is_short = usage.inodes > 0 && (after.free_inodes < left || need.inodes > usage.free_inodes);
        is_short.then(|| {
            let (free, all) = (usage.free_inodes, usage.inodes);
            format!(
                "{free} of {all} inodes are free, and it may need {}; kubelet evicts pods below {left}",
                need.inodes
            )
        })
    }
}

#[cfg(test)]
mod tests;
