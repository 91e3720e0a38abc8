//! Tags of other registries: a node of the cluster tells which images they are, by its own login and mirrors.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_ssm::{
    error::SdkError,
    operation::{get_command_invocation::GetCommandInvocationOutput, send_command::SendCommandError},
    types::CommandInvocationStatus,
};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::{
    image::TaggedImage,
    instance::{self, InstancesError},
    node::NodeSelector,
    outcome::{NodeReason, is_retryable},
    reachability::connection,
    settings::Mode,
    ssm::{self, SsmError},
    tag_line::{TagFailure, TagLine},
};

/// Limits how many tags one command names (`ssm/resolve.json`).
const MAX_TAGS: usize = 10;
/// Limits how many nodes are asked for a tag: the next where one has not answered, or its registry has not.
const MAX_NODES: usize = 3;
/// Limits how many pages of nodes are looked through for one that SSM reaches: the first may be Windows' or offline.
const MAX_PAGES: usize = 5;
/// Sets after how long SSM is asked whether a command has ended, again and again.
const POLLING: Duration = Duration::from_millis(700);
/// Sets after how many of these the next node is asked.
const NEXT_NODE: u32 = 6;
/// Sets how many of these are waited for in all: 12 seconds of the some 27 that a request of the HTTP API has.
const PATIENCE: u32 = 17;
/// Sets how long a node may take, in seconds, once it has the command.
const EXECUTION_SECONDS: &str = "10";
/// Sets how long SSM tries to hand the command to a node, in seconds: no less is accepted (SSM service model, `TimeoutSeconds`).
const DELIVERY_SECONDS: i32 = 30;
/// Limits how much is passed on of what a node says on its stderr, in characters.
const MAX_WHY: usize = 300;
/// Says in SSM's list of commands what it is for.
const COMMENT: &str = "which digests tags of other registries stand for";
/// Names what the resolving document's name ends with, after the stack's own.
const DOCUMENT_SUFFIX: &str = "-resolve-tags";

/// Tells of tags the digest of each, or why none is told. One of which no node said anything has no entry.
pub type ResolvedTags = BTreeMap<TaggedImage, Result<String, TagFailure>>;

/// Tells why no node could be asked what tags are.
#[derive(Debug, Error)]
pub enum TagsError {
    /// A stack that observes sends nothing.
    #[error("the stack observes and asks no node what {0} is: name the image by its digest")]
    Observes(TaggedImage),
    /// There is no node to ask.
    #[error("no node that SSM reaches is there to tell what {0} is: name the image by its digest")]
    NoNode(TaggedImage),
    /// The nodes did not answer in time.
    #[error("no node has told in time what {0} is")]
    NoAnswer(TaggedImage),
    /// The command ended on a node, which told nothing.
    #[error("the node {0}, asked what tags are, told nothing: its command ended {1}")]
    NoLines(String, String),
    /// EC2 could not be asked for nodes.
    #[error(transparent)]
    Instances(#[from] InstancesError),
    /// SSM could not be asked.
    #[error(transparent)]
    Ssm(#[from] SsmError),
    /// SSM does not take the command.
    #[error("the command that asks a node what tags are could not be sent")]
    Send(#[source] Box<SdkError<SendCommandError>>),
}

/// The nodes that may be asked.
#[derive(Clone, Copy, Debug)]
pub enum Nodes<'a> {
    /// These, which SSM reaches.
    Ids(&'a [String]),
    /// Those of the first of these selectors that selects one which SSM reaches.
    Selected(&'a [NodeSelector]),
}

/// Asks nodes what tags of other registries are, by a document that changes nothing on them.
#[derive(Debug)]
pub struct TagResolver {
    ec2: aws_sdk_ec2::Client,
    ssm: aws_sdk_ssm::Client,
    document: String,
    mode: Mode,
    polling: Duration,
}

impl TagResolver {
    /// Sets up the clients; the document is the stack's.
    #[must_use]
    pub fn new(config: &SdkConfig, stack: &str, mode: Mode) -> Self {
        Self::with(
            aws_sdk_ec2::Client::new(config),
            aws_sdk_ssm::Client::new(config),
            stack,
            mode,
            POLLING,
        )
    }

    /// Asks by these clients, and each time after this pause whether a command has ended.
    #[must_use]
    pub fn with(
        ec2: aws_sdk_ec2::Client,
        ssm: aws_sdk_ssm::Client,
        stack: &str,
        mode: Mode,
        polling: Duration,
    ) -> Self {
        let document = format!("{stack}{DOCUMENT_SUFFIX}");
        Self {
            ec2,
            ssm,
            document,
            mode,
            polling,
        }
    }

    /// Tells what tags are, as one node says, or the next where it does not: for up to 12 seconds.
    ///
    /// Costs nothing where there are no tags. Else a DescribeInstances and a DescribeInstanceInformation for each selector until
    /// one selects a node that SSM reaches, up to five of each where it reaches few, and for each ten tags a SendCommand and a
    /// few GetCommandInvocation.
    ///
    /// # Errors
    /// [`TagsError`] where no node says anything.
    pub async fn resolve(&self, tags: &BTreeSet<TaggedImage>, nodes: Nodes<'_>) -> Result<ResolvedTags, TagsError> {
        let Some(first) = tags.first() else {
            return Ok(ResolvedTags::new());
        };
        if self.mode == Mode::Observe {
            return Err(TagsError::Observes(first.clone()));
        }
        let nodes = self.reached(nodes).await?;
        if nodes.is_empty() {
            return Err(TagsError::NoNode(first.clone()));
        }
        let tags: Vec<&TaggedImage> = tags.iter().collect();
        let chunks = tags.chunks(MAX_TAGS).map(|tags| self.resolve_chunk(tags, &nodes));
        let mut resolved = ResolvedTags::new();
        let mut failed = None;
        for told in join_all(chunks).await {
            match told {
                Ok(told) => resolved.extend(told),
                Err(error) => failed = Some(error),
            }
        }
        match failed.filter(|_| resolved.is_empty()) {
            Some(error) => Err(error),
            None => Ok(resolved),
        }
    }

    /// Names up to three nodes that SSM reaches, if there are some, those first that were launched first: they are likely to have
    /// the program.
    async fn reached(&self, nodes: Nodes<'_>) -> Result<Vec<String>, TagsError> {
        let selectors = match nodes {
            Nodes::Ids(ids) => return Ok(ids.iter().take(MAX_NODES).cloned().collect()),
            Nodes::Selected(selectors) => selectors,
        };
        for selector in selectors {
            let ids = self.reached_of(selector).await?;
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        Ok(Vec::new())
    }

    /// Names up to three nodes of the first page of a selector's that has one which SSM reaches; none where `MAX_PAGES` have
    /// none.
    async fn reached_of(&self, selector: &NodeSelector) -> Result<Vec<String>, TagsError> {
        let (mut token, mut pages) = (None, 0);
        while pages < MAX_PAGES {
            let (mut ids, next) = instance::page_of(&self.ec2, selector, token).await?;
            if !ids.is_empty() {
                pages += 1;
                let managed = ssm::managed_nodes(&self.ssm, &ids).await?;
                ids.retain(|id| connection(managed.get(id)).is_ok());
                ids.truncate(MAX_NODES);
            }
            if !ids.is_empty() || next.is_none() {
                return Ok(ids);
            }
            token = next;
        }
        Ok(Vec::new())
    }

    /// Asks one node after the other until each tag has an answer that no other node would give differently.
    async fn resolve_chunk(&self, tags: &[&TaggedImage], nodes: &[String]) -> Result<ResolvedTags, TagsError> {
        let asked = nodes.iter().zip(0..).map(async |(node, place)| {
            sleep(self.polling * NEXT_NODE * place).await;
            self.ask(node, tags).await
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut resolved = ResolvedTags::new();
        let mut failed = None;
        let until_settled = async {
            while let Some(told) = asked.next().await {
                match told {
                    // A node is believed of what it was asked.
                    Ok(mut told) => {
                        told.retain(|line| tags.contains(&&line.tag));
                        merge(&mut resolved, told);
                    }
                    Err(error) => failed = Some(error),
                }
                if tags.iter().all(|tag| is_settled(resolved.get(*tag))) {
                    break;
                }
            }
        };
        let is_late = timeout(self.polling * PATIENCE, until_settled).await.is_err();
        if !resolved.is_empty() {
            return Ok(resolved);
        }
        Err(failed
            .filter(|_| !is_late)
            .unwrap_or_else(|| TagsError::NoAnswer(tags[0].clone())))
    }

    /// Asks a node, and waits until it has answered.
    async fn ask(&self, node: &str, tags: &[&TaggedImage]) -> Result<Vec<TagLine>, TagsError> {
        let names: Vec<String> = tags.iter().map(ToString::to_string).collect();
        let parameters = [
            ("tags", names.join(" ")),
            ("executionTimeout", EXECUTION_SECONDS.to_owned()),
        ];
        let parameters: HashMap<String, Vec<String>> =
            parameters.map(|(name, value)| (name.to_owned(), vec![value])).into();
        let request = self
            .ssm
            .send_command()
            .document_name(&self.document)
            .document_version("$LATEST")
            .instance_ids(node)
            .set_parameters(Some(parameters))
            .timeout_seconds(DELIVERY_SECONDS)
            .comment(COMMENT);
        let sent = request.send().await.map_err(|error| TagsError::Send(Box::new(error)))?;
        let id = sent.command.and_then(|command| command.command_id);
        let id = id.ok_or(SsmError::NoCommand)?;
        loop {
            sleep(self.polling).await;
            match ssm::invocation(&self.ssm, &id, node).await {
                Ok(invocation) if has_ended(&invocation) => {
                    return lines(&invocation).map_err(|how| TagsError::NoLines(node.to_owned(), how));
                }
                // It takes SSM a moment to know of it.
                Ok(_) | Err(SsmError::NoInvocation(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Takes in what a node told: a digest stays, and comes in the place of a failure.
fn merge(resolved: &mut ResolvedTags, told: Vec<TagLine>) {
    for TagLine { tag, digest } in told {
        match resolved.get(&tag) {
            Some(known) if known.is_ok() || digest.is_err() => {}
            _ => {
                resolved.insert(tag, digest);
            }
        }
    }
}

/// Returns true where a tag's digest is told, or that it is nothing which another time or another node may find: what one node
/// has no login for another may have.
#[must_use]
pub fn is_settled(told: Option<&Result<String, TagFailure>>) -> bool {
    match told {
        Some(Ok(_)) => true,
        Some(Err(failure)) => !is_retryable(&failure.reason) && failure.reason != NodeReason::Denied.as_str(),
        None => false,
    }
}

fn has_ended(invocation: &GetCommandInvocationOutput) -> bool {
    use CommandInvocationStatus::{Cancelling, Delayed, InProgress, Pending};
    !matches!(
        invocation.status(),
        None | Some(Pending | InProgress | Delayed | Cancelling)
    )
}

/// Reads what a node told; where that is nothing, as of one that cannot fetch the program, the error says how its command ended.
fn lines(invocation: &GetCommandInvocationOutput) -> Result<Vec<TagLine>, String> {
    let output = invocation.standard_output_content().unwrap_or_default();
    let lines: Vec<TagLine> = output.lines().filter_map(TagLine::parse).collect();
    if lines.is_empty() {
        let how = invocation.status_details().unwrap_or_default();
        let why = invocation.standard_error_content().unwrap_or_default().trim();
        return Err(format!("{how}: {}", why.chars().take(MAX_WHY).collect::<String>()));
    }
    Ok(lines)
}

#[cfg(all(test, feature = "mocks"))]
mod tests;
