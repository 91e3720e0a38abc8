//! What SSM tells of a command that is a job's.

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, Utc};
use prefetch::{command::Comment, image::Image};

/// Reads the comment of a command that is a job's first.
pub fn first_comment(command: &Command) -> Option<Comment> {
    let comment: Comment = command.comment()?.parse().ok()?;
    (comment.attempt == 1 && comment.job.is_none()).then_some(comment)
}

/// Tells when SSM was asked for a command.
pub fn requested_at(command: &Command) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(command.requested_date_time()?.to_millis().ok()?)
}

/// Reads the images of a command.
pub fn images(command: &Command) -> Vec<Image> {
    let images = command.parameters().and_then(|parameters| parameters.get("images"));
    let images = images.into_iter().flatten().flat_map(|list| list.split(' '));
    images.filter_map(|image| image.parse().ok()).collect()
}
