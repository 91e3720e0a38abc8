//! Instances: those that are running nodes of the cluster, by their state and tags in EC2.

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use prefetch::{
    instance::{Tags, is_auto_mode, is_up, tags},
    node::{Cluster, Membership},
    reachability::Unreachable,
};

use crate::{
    decision::{Decision, DecisionReason},
    message::Look,
};

/// Gives the tags of an instance that is a running node of the cluster, judged by its state and its tags, and whether it joins
/// the cluster only now: then with the tag that it gets thereby.
///
/// An instance that no tag calls a node of any cluster may still become one: it is handed back as long as the look is early.
///
/// # Errors
/// The decision, where the instance is no node of the cluster, or none yet.
pub fn node_tags(instance: &Instance, cluster: &Cluster, look: Look) -> Result<(Tags, bool), Decision> {
    let state = instance.state().and_then(|state| state.name());
    if !is_up(instance) {
        let state = state.map_or("in no state", InstanceStateName::as_str);
        return Err(Decision::dropped(DecisionReason::NotRunning, format!("it is {state}")));
    }
    let mut tags = tags(instance);
    let membership = cluster.membership(&tags);
    if let Some(decision) = refusal(instance, membership, cluster, look) {
        return Err(decision);
    }
    let joins = matches!(membership, Membership::Joining);
    if joins {
        tags.insert(cluster.tag_key.clone(), cluster.name.clone());
    }
    Ok((tags, joins))
}

/// Decides of an instance that is no node of the cluster, or none yet; nothing of a node.
fn refusal(instance: &Instance, membership: Membership, cluster: &Cluster, look: Look) -> Option<Decision> {
    let (key, name) = (&cluster.tag_key, &cluster.name);
    Some(match membership {
        Membership::Foreign => Decision::dropped(DecisionReason::Foreign, "its tags name another cluster"),
        _ if is_auto_mode(instance) => {
            Decision::dropped(DecisionReason::Unsupported, Unreachable::AutoMode.to_string())
        }
        Membership::Expected => {
            let message = format!("other tags call it a node of {name}, but it has no {key} yet: see ClusterTagKey");
            Decision::handed_back(DecisionReason::NotTagged, message)
        }
        Membership::Unknown if look > Look::Early => {
            let message = format!("it has no tag {key}, nor any other that names a cluster");
            Decision::dropped(DecisionReason::Foreign, message)
        }
        Membership::Unknown => {
            let message = format!("it is not tagged yet: no {key}, nor any other tag that names a cluster");
            Decision::handed_back(DecisionReason::NotTagged, message)
        }
        Membership::Ours | Membership::Joining => {
            let state = instance.state().and_then(|state| state.name());
            let is_pending = state == Some(&InstanceStateName::Pending);
            return is_pending.then(|| Decision::handed_back(DecisionReason::Pending, "it is not yet running"));
        }
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{InstanceState, Tag};

    use super::*;

    #[test]
    fn an_instance_that_only_other_tags_call_ours_is_handed_back_however_often_it_was_looked_at() {
        for look in [Look::Early, Look::Late, Look::Last] {
            let decision = node_tags(&instance("alpha.eksctl.io/cluster-name"), &cluster(), look).unwrap_err();
            assert!(matches!(decision, Decision::HandedBack(why) if why.message.contains("ClusterTagKey")));
        }
    }

    #[test]
    fn an_instance_that_no_tag_calls_a_node_is_handed_back_until_the_last_looks_and_dropped_then() {
        let decided = |look| node_tags(&instance("team"), &cluster(), look).unwrap_err();
        assert!(matches!(decided(Look::Early), Decision::HandedBack(why) if why.reason == DecisionReason::NotTagged));
        for look in [Look::Late, Look::Last] {
            assert!(matches!(decided(look), Decision::Dropped(why) if why.reason == DecisionReason::Foreign));
        }
    }

    #[test]
    fn a_node_that_joins_only_now_has_the_tag_that_it_gets_thereby() {
        let (tags, joins) = node_tags(&instance("eks:cluster-name"), &cluster(), Look::Early).unwrap();
        assert!(joins);
        assert_eq!(tags["aws:eks:cluster-name"], "prod");
    }

    fn instance(tag: &str) -> Instance {
        Instance::builder()
            .state(InstanceState::builder().name(InstanceStateName::Running).build())
            .tags(Tag::builder().key(tag).value("prod").build())
            .build()
    }

    fn cluster() -> Cluster {
        Cluster {
            name: "prod".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        }
    }
}
