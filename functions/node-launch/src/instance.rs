//! What is to become of an instance, by what EC2 says of it.

use std::time::{Duration, SystemTime};

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use prefetch::{
    instance::{Tags, is_auto_mode, is_up, tags},
    node::{Cluster, Membership},
};

use crate::decision::{Decision, Reason};

/// How long after its launch an instance without any cluster's tag may still get one; nothing is documented of when.
const TAGS_SETTLE: Duration = Duration::from_mins(3);

/// Gives the tags of an instance that is a running node of the cluster, judged by its state, its tags and its age.
///
/// An instance that no tag calls a node of any cluster is handed back while it is young: whether the cluster's tag is
/// there at the moment of `running` is not documented.
///
/// # Errors
/// The decision, where the instance is no node of the cluster, or none yet.
pub fn node_tags(instance: &Instance, cluster: &Cluster, now: SystemTime) -> Result<Tags, Decision> {
    let state = instance.state().and_then(|state| state.name());
    if !is_up(instance) {
        let state = state.map_or("in no state", InstanceStateName::as_str);
        return Err(Decision::dropped(Reason::NotRunning, format!("it is {state}")));
    }
    let tags = tags(instance);
    match cluster.membership(&tags) {
        Membership::Foreign => Err(Decision::dropped(Reason::Foreign, "its tags name another cluster")),
        _ if is_auto_mode(instance) => {
            let message = "EKS Auto Mode manages the instance and allows no SSM";
            Err(Decision::dropped(Reason::Unsupported, message))
        }
        Membership::Ours if state == Some(&InstanceStateName::Pending) => {
            Err(Decision::handed_back(Reason::Pending, "it is not yet running"))
        }
        Membership::Ours => Ok(tags),
        membership => Err(untagged(membership, cluster, age(instance, now))),
    }
}

fn untagged(membership: Membership, cluster: &Cluster, age: Duration) -> Decision {
    let key = &cluster.tag_key;
    if membership == Membership::Expected {
        let message = format!(
            "other tags call it a node of {}, but it has no {key} yet: see ClusterTagKey",
            cluster.name
        );
        Decision::handed_back(Reason::NotTagged, message)
    } else if age < TAGS_SETTLE {
        Decision::handed_back(Reason::NotTagged, format!("its tag {key} is not there yet"))
    } else {
        let age = age.as_secs();
        Decision::dropped(
            Reason::Foreign,
            format!("it has no tag {key} {age} seconds after its launch"),
        )
    }
}

/// The time since the instance's launch, or since its last start; very long where EC2 does not say.
fn age(instance: &Instance, now: SystemTime) -> Duration {
    instance
        .launch_time()
        .and_then(|time| SystemTime::try_from(*time).ok())
        .map_or(Duration::MAX, |launched| {
            now.duration_since(launched).unwrap_or_default()
        })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::{
        primitives::DateTime,
        types::{InstanceState, Tag},
    };

    use super::*;

    #[test]
    fn an_instance_that_only_other_tags_call_ours_is_handed_back_whatever_its_age() {
        let decision = node_tags(&instance("kubernetes.io/cluster/prod"), &cluster(), SystemTime::now()).unwrap_err();
        assert!(matches!(decision, Decision::HandedBack(why) if why.message.contains("ClusterTagKey")));
    }

    #[test]
    fn an_old_instance_that_no_tag_calls_a_node_is_dropped() {
        let decision = node_tags(&instance("team"), &cluster(), SystemTime::now()).unwrap_err();
        assert!(matches!(decision, Decision::Dropped(why) if why.reason == Reason::Foreign));
    }

    fn instance(tag: &str) -> Instance {
        Instance::builder()
            .state(InstanceState::builder().name(InstanceStateName::Running).build())
            .launch_time(DateTime::from_secs(0))
            .tags(Tag::builder().key(tag).value("owned").build())
            .build()
    }

    fn cluster() -> Cluster {
        Cluster {
            name: "prod".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        }
    }
}
