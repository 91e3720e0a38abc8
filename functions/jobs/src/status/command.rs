//! Describes what SSM tells of commands that are jobs'.

use aws_sdk_ssm::{Client, types::Command};
use chrono::{DateTime, SecondsFormat, Utc};
use prefetch::{
    command::{Comment, Trigger},
    image::Image,
    ssm::{self, SsmError},
};

/// Limits how many pages of commands are looked through: of 2,000 commands, which takes some of a request's 27 seconds.
const MAX_PAGES: usize = 40;

/// Looks through the document's commands since a moment, the latest first; returns true where these are all.
///
/// # Errors
/// [`SsmError`] where SSM cannot be asked; those before were looked at.
pub async fn each_since(
    ssm: &Client,
    document: &str,
    since: DateTime<Utc>,
    mut look_at: impl FnMut(Command),
) -> Result<bool, SsmError> {
    let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut page = None;
    for _ in 0..MAX_PAGES {
        let answer = ssm::commands(ssm, document, &since, page).await?;
        answer.commands.unwrap_or_default().into_iter().for_each(&mut look_at);
        page = answer.next_token.filter(|token| !token.is_empty());
        if page.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the comment of a command that is a job's first; an inventory is of none.
pub fn first_comment(command: &Command) -> Option<Comment> {
    let comment: Comment = command.comment()?.parse().ok()?;
    let is_of_job = comment.trigger != Trigger::Inventory;
    (is_of_job && comment.attempt == 1 && comment.job.is_none()).then_some(comment)
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
