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
use serde_json::{Value, json};

use crate::{
    http::{
        answer::Answer,
        problem::Problem,
        query::{Query, stale, token},
    },
    status::{
        command::{first_comment, requested_at},
        sources::{JobSources, facts},
    },
    store::Store,
};

/// Tells where a page begins in each of the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Next {
    commands: At<OfPage>,
    /// After a sort key of the rows that list observed jobs.
    observed: At<String>,
}

/// Tells where to go on in a list.
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

/// Holds a place in SSM's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfPage {
    /// SSM's token for the page; none for its first.
    token: Option<String>,
    /// The last job that was told, of either list, where not all of the page's were.
    told: Option<Place>,
}

impl At<OfPage> {
    /// Gives the last job that was told before.
    fn told(&self) -> Option<&Place> {
        match self {
            Self::After(page) => page.told.as_ref(),
            Self::First | Self::End => None,
        }
    }

    /// Begins the same page after what was told last: what is not older was told with it, or came since.
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

/// Holds a part of a list, newest first.
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

/// Holds a page, merged of both lists.
struct Merged {
    /// The jobs with their commands; those without were observed.
    jobs: Vec<(Place, Option<Command>)>,
    /// Where the page after it begins; none where it is the last.
    next: Option<Next>,
}

/// Lists jobs, newest first: one ListCommands, one Query and one BatchGetItem a page.
///
/// # Errors
/// A 400 where the query is not accepted, a 503 where AWS cannot be asked.
pub async fn list(sources: &JobSources<'_>, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page = query.page::<Next>(1..=50, 20)?;
    let begin = page.next.unwrap_or_default();
    let (commands, observed) = try_join(
        commands(sources, page.limit, &begin.commands),
        observed(sources.store, page.limit, &begin.observed),
    )
    .await?;
    let Merged { jobs, next } = merge(begin, page.limit, commands, observed);
    let mut answer = json!({"jobs": described(sources, jobs, now).await?});
    if let Some(next) = next {
        answer["next"] = json!(token(&next));
    }
    Ok(Answer::ok(&answer))
}

fn merge(
    begin: Next,
    limit: usize,
    (commands, token_after): (Part<Command>, Option<String>),
    observed: Part<()>,
) -> Merged {
    let (of_commands, of_observed) = newest(&commands, &observed, limit);
    let are_all_commands = of_commands == commands.jobs.len();
    let are_all_observed = of_observed == observed.jobs.len() && !observed.has_more;
    let commands = commands.jobs.into_iter().take(of_commands);
    let commands = commands.map(|(place, command)| (place, Some(command)));
    let observed = observed.jobs.into_iter().take(of_observed);
    let mut jobs: Vec<_> = commands.chain(observed.map(|(place, ())| (place, None))).collect();
    jobs.sort_by(|(one, _), (other, _)| other.cmp(one));

    let last = jobs.last().map(|(place, _)| place);
    let commands = match token_after {
        None if are_all_commands => At::End,
        // A page of which nothing was left is all newer than what was told: what was may stand on the next.
        token if are_all_commands && of_commands == 0 => At::After(OfPage {
            token,
            told: begin.commands.told().cloned(),
        }),
        token if are_all_commands => At::After(OfPage { token, told: None }),
        _ => begin.commands.within(last),
    };
    let observed = match last {
        _ if are_all_observed => At::End,
        Some((at, id)) => At::After(Key::observed(id, *at).sk),
        None => begin.observed,
    };
    let is_last = (&commands, &observed) == (&At::End, &At::End);
    let next = (!is_last).then_some(Next { commands, observed });
    Merged { jobs, next }
}

/// Describes jobs by their rows and their commands.
async fn described(
    sources: &JobSources<'_>,
    jobs: Vec<(Place, Option<Command>)>,
    now: DateTime<Utc>,
) -> Result<Vec<Value>, Problem> {
    let ids: BTreeSet<&str> = jobs.iter().map(|((_, id), _)| id.as_str()).collect();
    let rows = sources.rows(&ids).await.map_err(Problem::unavailable)?;
    let mut described = Vec::with_capacity(jobs.len());
    for ((_, id), command) in jobs {
        let facts = facts(&rows, &id, command).map_err(Problem::unavailable)?;
        described.extend(facts.job(&id, sources.settings, now).map(|job| job.to_json()));
    }
    Ok(described)
}

/// Reads a page of the commands that are jobs' first, and SSM's token for the page that follows.
async fn commands(
    sources: &JobSources<'_>,
    limit: usize,
    at: &At<OfPage>,
) -> Result<(Part<Command>, Option<String>), Problem> {
    let (page, told) = match at {
        At::First => (None, None),
        At::After(OfPage { token, told }) => (token.clone(), told.as_ref()),
        At::End => return Ok((Part::none(), None)),
    };
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    let answer = ssm::latest_commands(sources.ssm, &sources.settings.shared.document, limit, page).await;
    let answer = answer.map_err(|error| match error {
        SsmError::InvalidToken(_) => stale(),
        error => Problem::unavailable(error),
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
async fn observed(store: &Store, limit: usize, at: &At<String>) -> Result<Part<()>, Problem> {
    let after = match at {
        At::First => None,
        At::After(key) => Some(key.as_str()),
        At::End => return Ok(Part::none()),
    };
    let (keys, has_more) = store.observed(limit, after).await.map_err(Problem::unavailable)?;
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
fn newest<S, T>(one: &Part<S>, other: &Part<T>, limit: usize) -> (usize, usize) {
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
