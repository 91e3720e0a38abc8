//! GET /jobs: the jobs, newest first.
//!
//! What was sent SSM lists, what was observed the table does: a page is merged of a page of each, and goes no further than
//! either of them reaches.

use std::collections::BTreeSet;

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, Utc};
use futures_util::future::try_join;
use prefetch::{
    rows::Key,
    ssm::{self, SsmError},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    answer::Answer,
    handler::Jobs,
    problem::Problem,
    query::{Query, stale, token},
    status::{first_comment, known, requested_at, rows},
    store,
};

/// Where a page begins in each of the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Next {
    commands: At<OfPage>,
    /// After a sort key of the rows that list observed jobs.
    observed: At<String>,
}

/// Where to go on in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum At<T> {
    /// At its beginning.
    #[default]
    First,
    /// Here.
    After(T),
    /// All was told.
    End,
}

/// A place in SSM's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfPage {
    /// SSM's token for the page; none for its first.
    token: Option<String>,
    /// The last job that was told, of either list, where not all of the page's were.
    told: Option<Place>,
}

impl At<OfPage> {
    /// The last job that was told before.
    fn told(&self) -> Option<&Place> {
        match self {
            Self::After(page) => page.told.as_ref(),
            Self::First | Self::End => None,
        }
    }

    /// The same page, after what was told last: what is not older was told with it, or came since.
    fn within(self, last: Option<&Place>) -> Self {
        let Some(last) = last else { return self };
        let token = match self {
            Self::After(OfPage { token, .. }) => token,
            Self::First | Self::End => None,
        };
        Self::After(OfPage {
            token,
            told: Some(last.clone()),
        })
    }
}

/// Orders jobs: by when they were requested, then by id.
type Place = (DateTime<Utc>, String);

/// A part of a list, newest first.
struct Part<T> {
    jobs: Vec<(Place, T)>,
    /// Is true where the list goes on after it.
    has_more: bool,
}

impl<T> Part<T> {
    fn none() -> Self {
        Self {
            jobs: Vec::new(),
            has_more: false,
        }
    }
}

/// Lists jobs, newest first: one ListCommands, one Query and one BatchGetItem a page.
///
/// # Errors
/// A 400 where the query is not accepted, a 503 where AWS cannot be asked.
pub async fn list(jobs: &Jobs, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page = query.page::<Next>(1..=50, 20)?;
    let begin = page.next.unwrap_or_default();
    let ((commands, token_after), observed) = try_join(
        commands(jobs, page.limit, &begin.commands),
        observed(jobs, page.limit, &begin.observed),
    )
    .await?;
    let (of_commands, of_observed) = merged(&commands, &observed, page.limit);
    let are_all_commands = of_commands == commands.jobs.len();
    let are_all_observed = of_observed == observed.jobs.len() && !observed.has_more;
    let commands = commands.jobs.into_iter().take(of_commands);
    let commands = commands.map(|(place, command)| (place, Some(command)));
    let observed = observed.jobs.into_iter().take(of_observed);
    let mut listed: Vec<_> = commands.chain(observed.map(|(place, ())| (place, None))).collect();
    listed.sort_by(|(one, _), (other, _)| other.cmp(one));

    let last = listed.last().map(|(place, _)| place);
    let next = Next {
        commands: match token_after {
            None if are_all_commands => At::End,
            // A page of which nothing was left is all newer than what was told: what was may stand on the next.
            token if are_all_commands && of_commands == 0 => At::After(OfPage {
                token,
                told: begin.commands.told().cloned(),
            }),
            token if are_all_commands => At::After(OfPage { token, told: None }),
            _ => begin.commands.within(last),
        },
        observed: match last {
            _ if are_all_observed => At::End,
            Some((at, id)) => At::After(Key::observed(id, *at).sk),
            None => begin.observed,
        },
    };

    let ids: BTreeSet<&str> = listed.iter().map(|((_, id), _)| id.as_str()).collect();
    let rows = rows(jobs, &ids).await.map_err(|error| Problem::unavailable(&error))?;
    let mut told = Vec::with_capacity(listed.len());
    for ((_, id), command) in listed {
        let known = known(&rows, &id, command).map_err(|error| Problem::unavailable(&error))?;
        told.extend(known.job(&id, &jobs.settings, now).map(|job| job.told()));
    }
    let mut answer = json!({"jobs": told});
    if (&next.commands, &next.observed) != (&At::End, &At::End) {
        answer["next"] = json!(token(&next));
    }
    Ok(Answer::ok(&answer))
}

/// Reads a page of the commands that are jobs' first, and SSM's token for the page that follows.
async fn commands(jobs: &Jobs, limit: usize, at: &At<OfPage>) -> Result<(Part<Command>, Option<String>), Problem> {
    let (page, told) = match at {
        At::First => (None, None),
        At::After(OfPage { token, told }) => (token.clone(), told.as_ref()),
        At::End => return Ok((Part::none(), None)),
    };
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    let answer = ssm::latest_commands(&jobs.ssm, &jobs.settings.shared.document, limit, page).await;
    let answer = answer.map_err(|error| match error {
        SsmError::InvalidToken(_) => stale(),
        error => Problem::unavailable(&error),
    })?;
    let firsts = answer.commands.unwrap_or_default().into_iter();
    let firsts = firsts.filter(|command| first_comment(command).is_some());
    let placed = firsts.filter_map(|command| Some((place(&command)?, command)));
    let mut commands: Vec<_> = placed.collect();
    // What was sent meanwhile moves the first page on.
    commands.retain(|(place, _)| told.is_none_or(|told| place < told));
    commands.sort_by(|(one, _), (other, _)| other.cmp(one));
    let token = answer.next_token.filter(|token| !token.is_empty());
    let part = Part {
        jobs: commands,
        has_more: token.is_some(),
    };
    Ok((part, token))
}

/// Reads a page of the observed jobs.
async fn observed(jobs: &Jobs, limit: usize, at: &At<String>) -> Result<Part<()>, Problem> {
    let after = match at {
        At::First => None,
        At::After(key) => Some(key.as_str()),
        At::End => return Ok(Part::none()),
    };
    let listed = store::observed(jobs, limit, after).await;
    let (keys, has_more) = listed.map_err(|error| Problem::unavailable(&error))?;
    let placed = keys.iter().filter_map(|key| {
        let (at, id) = key.split_once('#')?;
        Some(((at.parse().ok()?, id.to_owned()), ()))
    });
    Ok(Part {
        jobs: placed.collect(),
        has_more,
    })
}

fn place(command: &Command) -> Option<Place> {
    Some((requested_at(command)?, command.command_id()?.to_owned()))
}

/// Tells how many of each part the newest `limit` are: no older one than the last of a part whose list goes on.
fn merged<S, T>(one: &Part<S>, other: &Part<T>, limit: usize) -> (usize, usize) {
    let (mut ones, mut others) = (0, 0);
    while ones + others < limit {
        let is_of_one = match (one.jobs.get(ones), other.jobs.get(others)) {
            (None, _) if one.has_more => break,
            (_, None) if other.has_more => break,
            (None, None) => break,
            (first, second) => first.map(|(place, _)| place) > second.map(|(place, _)| place),
        };
        if is_of_one {
            ones += 1;
        } else {
            others += 1;
        }
    }
    (ones, others)
}
