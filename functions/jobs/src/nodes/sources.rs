//! Where what is known of nodes is read: EC2, SSM, ECR and the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ec2::{
    error::{ProvideErrorMetadata, SdkError},
    operation::describe_instances::DescribeInstancesError,
    types::Instance,
};
use aws_sdk_ssm::types::InstanceInformation;
use chrono::{DateTime, Utc};
use futures_util::future::try_join3;
use prefetch::{
    ecr::Newest,
    image::Image,
    instance::{is_auto_mode, nodes_of, tags},
    node::NodeSelector,
    rows::{Inventory, Key},
    rule::Rule,
    rule_images::RuleImages,
    settings::Settings,
    ssm,
};
use thiserror::Error;

use crate::{
    http::{problem::Problem, query::stale},
    store::Store,
};

/// Limits how many nodes' rows are in memory at once: as many as one BatchGetItem reads.
const AT_ONCE: usize = 100;
/// Names what EC2 answers where it does not take a token for its own (EC2 API reference, error codes).
const NO_TOKENS: [&str; 3] = ["InvalidNextToken", "InvalidPaginationToken", "InvalidParameterValue"];

/// Holds what nodes are read from.
#[derive(Clone, Copy)]
pub struct NodeSources<'a> {
    pub ec2: &'a aws_sdk_ec2::Client,
    pub ssm: &'a aws_sdk_ssm::Client,
    pub images: &'a RuleImages,
    pub store: &'a Store,
    pub settings: &'a Settings,
}

/// Tells why nodes cannot be told of.
#[derive(Debug, Error)]
pub enum NodesError {
    /// EC2 did not list the instances.
    #[error("the instances could not be listed")]
    Instances(#[source] Box<SdkError<DescribeInstancesError>>),
    /// A row is not shaped as it is written.
    #[error("what a node holds cannot be understood")]
    Row(#[source] serde_dynamo::Error),
    /// There are more nodes than can be asked about in the time.
    #[error("the nodes could not all be asked about in time")]
    TimeOver,
}

/// Holds an instance with its rules.
pub struct Listed<'a> {
    pub id: &'a str,
    pub instance: &'a Instance,
    pub rules: Vec<&'a Rule>,
}

impl<'a> Listed<'a> {
    /// Finds the rules that want an instance.
    pub fn of(instance: &'a Instance, settings: &'a Settings) -> Option<Self> {
        let tags = tags(instance);
        let wants = |rule: &&Rule| NodeSelector::new(&settings.cluster, rule).matches(&tags);
        Some(Self {
            id: instance.instance_id()?,
            instance,
            rules: settings.rules.iter().filter(wants).collect(),
        })
    }

    /// Names its rules' newest images, each once.
    pub fn wanted<'b>(&self, images: &'b BTreeMap<&str, Vec<Image>>) -> BTreeSet<&'b Image> {
        self.rules.iter().flat_map(|rule| &images[rule.name.as_str()]).collect()
    }
}

/// Holds what SSM, ECR and the table say of nodes.
pub struct NodeFacts<'a> {
    /// Their agents as SSM describes them, by instance id.
    pub managed: HashMap<String, InstanceInformation>,
    /// The newest images of each rule that wants one of them, by the rule's name.
    pub images: BTreeMap<&'a str, Vec<Image>>,
    /// Their inventories, in the order of the nodes.
    pub inventories: Vec<Inventory>,
}

impl NodeSources<'_> {
    /// Lists a page of the cluster's instances, and EC2's token for the next one.
    ///
    /// # Errors
    /// A 400 where the token is none of EC2's, a 503 where EC2 cannot be asked.
    pub async fn instances(
        &self,
        limit: usize,
        next: Option<String>,
    ) -> Result<(Vec<Instance>, Option<String>), Problem> {
        let is_next = next.is_some();
        let request = self
            .ec2
            .describe_instances()
            .set_filters(Some(nodes_of(&self.settings.cluster)))
            .max_results(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_next_token(next);
        let answer = request.send().await.map_err(|error| {
            if is_next && error.code().is_some_and(|code| NO_TOKENS.contains(&code)) {
                stale()
            } else {
                Problem::unavailable(NodesError::Instances(Box::new(error)))
            }
        })?;
        let reservations = answer.reservations.unwrap_or_default().into_iter();
        let instances = reservations.flat_map(|reservation| reservation.instances.unwrap_or_default());
        let next = answer.next_token.filter(|token| !token.is_empty());
        Ok((instances.collect(), next))
    }

    /// Reads what is known of nodes; `images` tells how long ECR's answers count.
    ///
    /// # Errors
    /// A 503 where AWS cannot be asked.
    pub async fn facts<'b>(
        &self,
        images: &RuleImages,
        nodes: &[Listed<'b>],
        now: DateTime<Utc>,
    ) -> Result<NodeFacts<'b>, Problem> {
        let newest = newest(images, nodes, now);
        let read = try_join3(self.managed(nodes), newest, self.inventories(nodes));
        let (managed, images, inventories) = read.await?;
        Ok(NodeFacts {
            managed,
            images,
            inventories,
        })
    }

    /// Tells what SSM knows of those nodes that allow it.
    async fn managed(&self, nodes: &[Listed<'_>]) -> Result<HashMap<String, InstanceInformation>, Problem> {
        let allow_ssm = nodes.iter().filter(|node| !is_auto_mode(node.instance));
        let ids: Vec<String> = allow_ssm.map(|node| node.id.to_owned()).collect();
        ssm::managed_nodes(self.ssm, &ids).await.map_err(Problem::unavailable)
    }

    /// Reads what each of the nodes holds.
    async fn inventories(&self, nodes: &[Listed<'_>]) -> Result<Vec<Inventory>, Problem> {
        let mut inventories = Vec::with_capacity(nodes.len());
        for nodes in nodes.chunks(AT_ONCE) {
            let keys: Vec<Key> = nodes.iter().map(|node| Key::inventory(node.id)).collect();
            let rows = self.store.read(&keys.iter().cloned().collect()).await;
            let rows = rows.map_err(Problem::unavailable)?;
            for key in &keys {
                let inventory: Option<Inventory> = rows
                    .get(key)
                    .map_err(|error| Problem::unavailable(NodesError::Row(error)))?;
                inventories.push(inventory.unwrap_or_default());
            }
        }
        Ok(inventories)
    }
}

/// Names the newest images of each rule that wants one of the nodes, by the rule's name.
async fn newest<'a>(
    images: &RuleImages,
    nodes: &[Listed<'a>],
    now: DateTime<Utc>,
) -> Result<BTreeMap<&'a str, Vec<Image>>, Problem> {
    let rules = nodes.iter().flat_map(|node| &node.rules);
    let rules: BTreeMap<&str, &Rule> = rules.map(|rule| (rule.name.as_str(), *rule)).collect();
    let mut newest = BTreeMap::new();
    for (name, rule) in rules {
        let used = images.known_use(rule, now.into()).await;
        let used = used.map_err(Problem::unavailable)?;
        let of_rule = images.newest(rule, &used, now.into()).await;
        let of_rule = of_rule.and_then(Newest::whole);
        newest.insert(name, of_rule.map_err(Problem::unavailable)?);
    }
    Ok(newest)
}
