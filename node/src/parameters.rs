//! What a command is asked to do: the document's parameters, as the SSM agent hands them over.

use std::time::Duration;

use prefetch::image::Image;

/// The parameters of one command, all of them usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// 1 to 50 images, in the order in which they were named; an image may be named twice.
    pub images: Vec<Image>,
    /// The seconds after which SSM kills the command.
    pub execution_timeout: Duration,
    /// The percentage that no pull may reach; kubelet's own setting may be lower.
    pub image_gc_high_threshold_percent: u8,
    /// How many images are pulled at once.
    pub max_parallel_image_pulls: usize,
    /// The largest compressed size in bytes; none for no limit.
    pub max_image_bytes: Option<u64>,
    /// How many newest images of ours stay in each repository; 0 to remove none.
    pub keep: usize,
    /// Whether images of ours are exempt from kubelet's garbage collection while they are kept.
    pub pin: bool,
    /// Whether the command only says what it would do.
    pub report_only: bool,
}

impl Parameters {
    /// Reads the parameters by a look-up from a variable's name (`SSM_images`) to its value.
    ///
    /// # Errors
    /// The first that cannot be used, in words for people.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        todo!()
    }
}
