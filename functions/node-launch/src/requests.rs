//! The requests of a call: for running nodes of the cluster, which SSM can reach.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ec2::types::Instance;
use aws_sdk_ssm::types::InstanceInformation;
use prefetch::{
    node::NodeSelector,
    reachability::{Unreachable, connection},
    rule::Rule,
    settings::Settings,
    ssm::{self, SsmError},
};

use crate::{
    decision::{Decision, DecisionReason},
    instance::node_tags,
    message::{Look, Request},
};

/// The instances as EC2 describes them, by id.
pub type Instances = HashMap<String, Instance>;
/// The decision of each request.
pub type Decisions = BTreeMap<Request, Decision>;
/// A request for a node of the cluster, and the rules by which it is served.
pub type RequestWithRules<'a> = (Request, Vec<&'a Rule>);

/// Keeps the requests for instances that are running nodes of the cluster, each with its rules.
pub fn of_nodes<'a>(
    settings: &'a Settings,
    requests: &BTreeMap<Request, Look>,
    instances: &Instances,
    decisions: &mut Decisions,
) -> Vec<RequestWithRules<'a>> {
    let mut kept = Vec::with_capacity(requests.len());
    for (request, look) in requests {
        match rules_of(settings, request, instances.get(request.node()), *look) {
            Ok(rules) => kept.push((request.clone(), rules)),
            Err(decision) => {
                decisions.insert(request.clone(), decision);
            }
        }
    }
    kept
}

fn rules_of<'a>(
    settings: &'a Settings,
    request: &Request,
    instance: Option<&Instance>,
    look: Look,
) -> Result<Vec<&'a Rule>, Decision> {
    let instance = instance.ok_or_else(|| Decision::dropped(DecisionReason::Gone, "EC2 knows no such instance"))?;
    let (tags, joins) = node_tags(instance, &settings.cluster, look)?;
    let applies = |rule: &&Rule| match request {
        Request::Newest(_) => NodeSelector::new(&settings.cluster, rule).matches(&tags),
        Request::Retry(retry) => retry.rule == rule.name,
    };
    let rules: Vec<&Rule> = settings.rules.iter().filter(applies).collect();
    if rules.is_empty() {
        return Err(match request {
            // A controller may put on the tag of a rule's `nodes` until then. Where only one of two rules wants the node
            // by now, it is served by that one; the other's images come with the reconcile.
            Request::Newest(_) if joins && look == Look::Early => {
                let message = "no rule wants its tags, and it has not joined the cluster yet";
                Decision::handed_back(DecisionReason::NoRule, message)
            }
            Request::Newest(_) => Decision::dropped(DecisionReason::NoRule, "no rule wants its tags"),
            Request::Retry(retry) => {
                Decision::dropped(DecisionReason::NoRule, format!("the rule {} is no more", retry.rule))
            }
        });
    }
    Ok(rules)
}

/// Keeps the requests for nodes that SSM can reach now.
///
/// # Errors
/// [`SsmError`] where SSM does not say which nodes are online.
pub async fn of_online_nodes<'a>(
    client: &aws_sdk_ssm::Client,
    requests: Vec<RequestWithRules<'a>>,
    decisions: &mut Decisions,
) -> Result<Vec<RequestWithRules<'a>>, SsmError> {
    let ids = nodes(requests.iter().map(|(request, _)| request));
    let managed = ssm::managed_nodes(client, &ids).await?;
    Ok(requests
        .into_iter()
        .filter(|(request, _)| match reachable(managed.get(request.node())) {
            Ok(()) => true,
            Err(decision) => {
                decisions.insert(request.clone(), decision);
                false
            }
        })
        .collect())
}

/// Decides of a node that SSM cannot reach, or must not.
fn reachable(node: Option<&InstanceInformation>) -> Result<(), Decision> {
    connection(node).map_err(|why| match why {
        Unreachable::NotRegistered => Decision::handed_back(DecisionReason::NotOnline, format!("{why} yet")),
        Unreachable::ConnectionLost => Decision::handed_back(DecisionReason::NotOnline, why.to_string()),
        Unreachable::NotLinux | Unreachable::AutoMode => {
            Decision::dropped(DecisionReason::Unsupported, why.to_string())
        }
    })
}

/// Names the nodes that the requests are for, each once.
pub fn nodes<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Vec<String> {
    let nodes: BTreeSet<&str> = requests.into_iter().map(Request::node).collect();
    nodes.into_iter().map(str::to_owned).collect()
}
