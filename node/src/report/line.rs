//! The line of JSON that reports an image.

use std::{fmt, time::Duration};

use prefetch::{
    image::Image,
    outcome::{NodeReason, Status},
};

/// One image's report.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The image, as the command named it.
    pub image: &'a Image,
    /// Its outcome.
    pub status: Status,
    /// The reason, where there is something to say.
    pub reason: Option<NodeReason>,
    /// The time that it took.
    pub spent: Duration,
    /// The compressed size of what was pulled, or would be.
    pub bytes: u64,
    /// The number of attempts to pull it.
    pub attempts: u32,
}

impl fmt::Display for Line<'_> {
    /// Writes the line as JSON: nothing in it has a character that JSON escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"{{"image":"{}","digest":"{}","status":"{}","reason":"{}","seconds":{}.{:03},"bytes":{},"attempts":{}}}"#,
            self.image,
            self.image.digest(),
            self.status,
            self.reason.map_or("", NodeReason::as_str),
            self.spent.as_secs(),
            self.spent.subsec_millis(),
            self.bytes,
            self.attempts,
        )
    }
}
