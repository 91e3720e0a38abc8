//! GET /jobs/{id}: what has become of a job.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_ec2::Client;
use chrono::{DateTime, Utc};
use prefetch::{
    error_text::error_text,
    instance::{instances, is_up, node_name},
    node::{is_instance_id, is_managed_id},
    rows::{Item, Key},
    table::Rows,
};
use serde_json::json;
use tracing::warn;

use crate::{
    http::{
        answer::Answer,
        problem::Problem,
        query::{Page, Query, stale, token},
    },
    status::{
        job::Job,
        node::NodeRow,
        sources::{JobSources, check_id},
    },
    store::{NODE, Store, StoreError},
};

/// Limits for how many nodes at most EC2 is asked if they are there still.
const MAX_WAITING: i64 = 200;
/// Limits for how many nodes of a page at most the names are told: of as many as one DescribeInstances is asked for.
const MAX_NAMED: usize = 200;

/// Holds the rows of a job, and a page of its nodes'.
struct JobPage {
    rows: Rows,
    nodes: Vec<Item>,
    has_more: bool,
}

/// Tells what has become of a job, with a page of its nodes: one Query, one ListCommands while SSM has to be asked, and one
/// DescribeInstances where nodes of the page are not warm, which are told by their names too.
///
/// # Errors
/// A 400 where id or query is not accepted, a 404 where there is no such job, a 503 where AWS cannot be asked.
pub async fn get(
    sources: &JobSources<'_>,
    ec2: &Client,
    id: &str,
    query: &Query,
    now: DateTime<Utc>,
) -> Result<Answer, Problem> {
    check_id(id)?;
    let page = query.page::<String>(1..=1000, 100)?;
    if page.next.as_ref().is_some_and(|next| !is_managed_id(next)) {
        return Err(stale());
    }
    let page = job_page(sources, id, page).await.map_err(Problem::unavailable)?;
    let job = sources.judge(id, &page.rows, now).await?;
    let job = without_gone(sources.store, ec2, job).await?;
    let nodes: Vec<NodeRow> = serde_dynamo::from_items(page.nodes)
        .map_err(StoreError::Row)
        .map_err(Problem::unavailable)?;
    let mut answer = job.to_json();
    if let Some(last) = nodes.last().filter(|_| page.has_more) {
        answer["next"] = json!(token(&last.id()));
    }
    let names = names(ec2, &nodes).await;
    answer["outcomes"] = nodes.iter().map(|node| node.to_json(&job, &names)).collect();
    Ok(Answer::ok(&answer))
}

async fn job_page(sources: &JobSources<'_>, id: &str, page: Page<String>) -> Result<JobPage, StoreError> {
    let is_first = page.next.is_none();
    let after = page.next.map(|node| Key::node(id, &node).item());
    // The first page begins with the job's own rows.
    let limit = page.limit + if is_first { 2 } else { 0 };
    let (items, goes_on) = sources.store.page(&Key::job(id).pk, Some(limit), after).await?;
    let rows = if is_first {
        let mut rows = Rows::default();
        rows.extend(items.iter().filter(|item| !is_node(item)).cloned());
        rows
    } else {
        sources.rows(&BTreeSet::from([id])).await?
    };
    let mut nodes: Vec<Item> = items.into_iter().filter(is_node).collect();
    let has_more = goes_on || nodes.len() > page.limit;
    nodes.truncate(page.limit);
    Ok(JobPage { rows, nodes, has_more })
}

fn is_node(item: &Item) -> bool {
    Key::of(item).is_some_and(|key| key.sk.starts_with(NODE))
}

/// Finds out which of the nodes that a job still waits for are gone, once all others are done: their retries are dropped,
/// which is written down nowhere.
async fn without_gone(store: &Store, ec2: &Client, mut job: Job) -> Result<Job, Problem> {
    if job
        .waits_only_for_retries()
        .is_none_or(|count| !(1..=MAX_WAITING).contains(&count))
    {
        return Ok(job);
    }
    let waiting = store.waiting(&job.id).await.map_err(Problem::unavailable)?;
    let instances = instances(ec2, &waiting).await.map_err(Problem::unavailable)?;
    let is_there = |id: &String| instances.get(id).is_some_and(is_up);
    job.leave_out(waiting.into_iter().filter(|id| !is_there(id)).collect());
    Ok(job)
}

/// Names the nodes of a page that are not warm as Kubernetes does, by their ids; what EC2 does not tell is left out.
async fn names(ec2: &Client, nodes: &[NodeRow]) -> HashMap<String, String> {
    let cold = nodes.iter().filter(|node| !node.is_warm()).map(NodeRow::id);
    let cold = cold.filter(|id| is_instance_id(id)).take(MAX_NAMED);
    let ids: Vec<String> = cold.map(str::to_owned).collect();
    let instances = instances(ec2, &ids).await.unwrap_or_else(|error| {
        warn!("nodes are told without their names: {}", error_text(&error));
        HashMap::new()
    });
    let named = |(id, instance)| Some((id, node_name(&instance)?.to_owned()));
    instances.into_iter().filter_map(named).collect()
}
