//! Nodes: how those that want an image are told apart, by SSM's targets and by an instance's own tags.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};

use aws_sdk_ssm::types::Target;
use regex_lite::Regex;
use serde::Serialize;

use crate::rule::Rule;
pub use crate::rule::{MAX_NODE_TAGS, MAX_TAG_VALUES};

static INSTANCE_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^i-(?:[0-9a-f]{8}|[0-9a-f]{17})$").expect("the pattern is a constant"));

static HYBRID_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^mi-[0-9a-f]{17}$").expect("the pattern is a constant"));

/// Returns true where a text is shaped like an EC2 instance's id.
#[must_use]
pub fn is_instance_id(text: &str) -> bool {
    INSTANCE_ID.is_match(text)
}

/// Tells if a text is shaped like the id of a node that SSM manages: an EC2 instance's, or that of one outside EC2, which
/// was registered by a hybrid activation (SSM service model, `InstanceId`).
#[must_use]
pub fn is_managed_id(text: &str) -> bool {
    is_instance_id(text) || HYBRID_ID.is_match(text)
}

/// The tags by which the nodes of a rule are known: the cluster's own and the rule's, ANDed; values of one key ORed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeSelector(BTreeMap<String, Vec<String>>);

impl NodeSelector {
    /// Selects the nodes of a cluster that a rule names.
    #[must_use]
    pub fn new(cluster: &Cluster, rule: &Rule) -> Self {
        Self::of_tags(cluster, rule.nodes.clone())
    }

    /// Selects the nodes of a cluster that carry these tags.
    #[must_use]
    pub fn of_tags(cluster: &Cluster, mut tags: BTreeMap<String, Vec<String>>) -> Self {
        tags.insert(cluster.tag_key.clone(), vec![cluster.name.clone()]);
        Self(tags)
    }

    /// Returns the tags, the cluster's own included.
    #[must_use]
    pub fn tags(&self) -> &BTreeMap<String, Vec<String>> {
        &self.0
    }

    /// Gives the selector as SSM's targets: at most 5, which SSM resolves to nodes itself.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.0
            .iter()
            .map(|(key, values)| {
                Target::builder()
                    .key(format!("tag:{key}"))
                    .set_values(Some(values.clone()))
                    .build()
            })
            .collect()
    }

    /// Returns true where an instance with these tags is selected.
    #[must_use]
    pub fn matches(&self, tags: &HashMap<String, String>) -> bool {
        self.0
            .iter()
            .all(|(key, values)| tags.get(key).is_some_and(|value| values.contains(value)))
    }
}

/// The cluster whose nodes are warmed, and the EC2 tag key whose value is its name.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The EKS cluster's name.
    pub name: String,
    /// The EC2 tag key that carries the name, such as `aws:eks:cluster-name`.
    pub tag_key: String,
}

/// Holds what an instance's tags say of its membership in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The cluster's tag is there.
    Ours,
    /// A tag that node groups and Karpenter put on at launch names this cluster, and none names another: the cluster's own
    /// tag, which AWS puts on once a node joins, follows.
    Joining,
    /// Another of the tags that EKS tooling puts on nodes names this cluster: the cluster's own tag may follow.
    Expected,
    /// The tags name another cluster.
    Foreign,
    /// No tag names any cluster (yet).
    Unknown,
}

impl Cluster {
    /// Tells from an instance's tags whether it is a node of this cluster.
    #[must_use]
    pub fn membership(&self, tags: &HashMap<String, String>) -> Membership {
        if let Some(value) = tags.get(&self.tag_key) {
            return if *value == self.name {
                Membership::Ours
            } else {
                Membership::Foreign
            };
        }
        // Whatever other tags say, this is the cluster that the instance has joined.
        if tags.get(JOINED_TAG).is_some_and(|joined| *joined != self.name) {
            return Membership::Foreign;
        }
        let clusters: BTreeSet<&str> = tags
            .iter()
            .filter_map(|(key, value)| named_cluster(key, value))
            .collect();
        if clusters.is_empty() {
            Membership::Unknown
        } else if !clusters.contains(self.name.as_str()) {
            Membership::Foreign
        } else if clusters.len() == 1 && self.is_tagged_at_launch(tags) {
            Membership::Joining
        } else {
            Membership::Expected
        }
    }

    /// Returns true where tags that are there at launch stand for the cluster's own.
    ///
    /// They do where that is AWS's, which comes late. Any other was chosen, and an instance without it may be meant to be
    /// left out.
    fn is_tagged_at_launch(&self, tags: &HashMap<String, String>) -> bool {
        let owned = format!("{NAMING_PREFIX}{}", self.name);
        let at_launch = LAUNCH_TAGS.map(|key| (key, self.name.as_str()));
        self.tag_key == JOINED_TAG
            && at_launch
                .into_iter()
                .chain([(owned.as_str(), OWNED)])
                .any(|(key, value)| tags.get(key).is_some_and(|tagged| tagged == value))
    }

    /// Names the clusters that an instance's tags call it a node of, each with the tag's key.
    pub fn named<'a>(&'a self, tags: &'a HashMap<String, String>) -> impl Iterator<Item = (&'a str, &'a str)> {
        tags.iter().filter_map(|(key, value)| {
            let own = (*key == self.tag_key).then_some(value.as_str());
            Some((own.or_else(|| named_cluster(key, value))?, key.as_str()))
        })
    }

    /// Gives the keys of the tags that name clusters, as a filter of EC2's takes them: `*` stands for any characters.
    #[must_use]
    pub fn naming_keys(&self) -> Vec<String> {
        let keys = NAMING_TAGS.into_iter().filter(|key| *key != self.tag_key);
        let keys = keys.chain([self.tag_key.as_str()]).map(str::to_owned);
        keys.chain([format!("{NAMING_PREFIX}*")]).collect()
    }
}

/// The tag that AWS puts on an instance when it joins a cluster, and lets nobody else put on.
const JOINED_TAG: &str = "aws:eks:cluster-name";
/// The tags with a cluster's name that are there from launch on: managed node groups', and Karpenter's.
const LAUNCH_TAGS: [&str; 2] = ["eks:cluster-name", "eks:eks-cluster-name"];
/// The tags, beside a stack's own [`Cluster::tag_key`], whose value is the name of the cluster that an instance is a node of.
const NAMING_TAGS: [&str; 4] = [
    JOINED_TAG,
    LAUNCH_TAGS[0],
    LAUNCH_TAGS[1],
    "alpha.eksctl.io/cluster-name",
];
/// Names what the key of another such tag begins with; the cluster's name follows.
pub const NAMING_PREFIX: &str = "kubernetes.io/cluster/";
/// That tag's value on what belongs to one cluster: Karpenter's and self-managed nodes.
const OWNED: &str = "owned";
/// Its value on what clusters share, such as subnets: no node.
const SHARED: &str = "shared";

/// Reads a cluster's name out of a tag that EKS, Karpenter or eksctl puts on nodes.
fn named_cluster<'a>(key: &'a str, value: &'a str) -> Option<&'a str> {
    if NAMING_TAGS.contains(&key) {
        Some(value)
    } else {
        key.strip_prefix(NAMING_PREFIX).filter(|_| value != SHARED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::parse_rules;

    fn cluster() -> Cluster {
        Cluster {
            name: "prod".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        }
    }

    fn tags<const N: usize>(tags: [(&str, &str); N]) -> HashMap<String, String> {
        tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn membership_is_told_by_the_clusters_tag_and_until_it_is_there_by_those_of_the_launch() {
        let (joined, owned) = ("aws:eks:cluster-name", "kubernetes.io/cluster/prod");
        let cases = [
            (tags([(joined, "prod")]), Membership::Ours),
            (tags([(joined, "test"), (owned, "owned")]), Membership::Foreign),
            (tags([(owned, "owned")]), Membership::Joining),
            (tags([("eks:cluster-name", "prod")]), Membership::Joining),
            (
                tags([("eks:eks-cluster-name", "prod"), ("team", "ml")]),
                Membership::Joining,
            ),
            (
                tags([("eks:cluster-name", "prod"), ("kubernetes.io/cluster/test", "owned")]),
                Membership::Expected,
            ),
            (tags([("alpha.eksctl.io/cluster-name", "prod")]), Membership::Expected),
            (tags([(owned, "")]), Membership::Expected),
            (tags([("kubernetes.io/cluster/test", "owned")]), Membership::Foreign),
            (tags([("eks:cluster-name", "test")]), Membership::Foreign),
            (tags([("kubernetes.io/cluster/test", "shared")]), Membership::Unknown),
            (tags([(owned, "shared")]), Membership::Unknown),
            (tags([("team", "ml")]), Membership::Unknown),
            (tags([]), Membership::Unknown),
        ];
        for (tags, expected) in cases {
            assert_eq!(cluster().membership(&tags), expected, "{tags:?}");
        }
    }

    #[test]
    fn a_tag_key_that_was_chosen_is_stood_for_by_no_other() {
        let chosen = Cluster {
            tag_key: "prefetch".to_owned(),
            ..cluster()
        };
        let cases = [
            (tags([("prefetch", "prod")]), Membership::Ours),
            (
                tags([("prefetch", "test"), ("eks:cluster-name", "prod")]),
                Membership::Foreign,
            ),
            (tags([("eks:cluster-name", "prod")]), Membership::Expected),
            (tags([("aws:eks:cluster-name", "prod")]), Membership::Expected),
            (
                tags([
                    ("aws:eks:cluster-name", "test"),
                    ("kubernetes.io/cluster/prod", "owned"),
                ]),
                Membership::Foreign,
            ),
        ];
        for (tags, expected) in cases {
            assert_eq!(chosen.membership(&tags), expected, "{tags:?}");
        }
    }

    #[test]
    fn clusters_are_named_by_the_stacks_own_tag_and_by_those_of_eks_karpenter_and_eksctl() {
        let own = Cluster {
            tag_key: "cluster".to_owned(),
            ..cluster()
        };
        let tags = tags([
            ("cluster", "a"),
            ("eks:cluster-name", "b"),
            ("kubernetes.io/cluster/c", "owned"),
            ("team", "d"),
        ]);
        let mut named: Vec<_> = own.named(&tags).collect();
        named.sort_unstable();
        assert_eq!(
            named,
            [
                ("a", "cluster"),
                ("b", "eks:cluster-name"),
                ("c", "kubernetes.io/cluster/c")
            ]
        );
        let filter = own.naming_keys();
        assert!(filter.contains(&"cluster".to_owned()) && filter.contains(&"kubernetes.io/cluster/*".to_owned()));
        let keys: std::collections::BTreeSet<_> = cluster().naming_keys().into_iter().collect();
        assert_eq!(keys.len(), cluster().naming_keys().len());
    }

    proptest! {
        /// SSM ANDs targets and ORs the values of one: what it resolves is what [`NodeSelector::matches`] says.
        #[test]
        fn a_selector_matches_the_nodes_that_ssm_resolves_its_targets_to(
            wanted in prop::collection::btree_map("[a-c]", prop::collection::vec("[x-z]", 1..3), 0..=MAX_NODE_TAGS),
            carried in prop::collection::hash_map("[a-c]", "[x-z]", 0..4),
            ours in any::<bool>(),
        ) {
            let rules = serde_json::json!([{"name": "rule", "nodes": wanted}]).to_string();
            let selector = NodeSelector::new(&cluster(), &parse_rules(&rules).unwrap()[0]);
            let mut carried = carried;
            carried.insert("aws:eks:cluster-name".to_owned(), if ours { "prod" } else { "test" }.to_owned());
            let targets = selector.targets();
            prop_assert!(targets.len() <= 5);
            let resolved = targets.iter().all(|target| {
                let key = target.key().unwrap().strip_prefix("tag:").unwrap();
                carried.get(key).is_some_and(|value| target.values().contains(value))
            });
            prop_assert_eq!(selector.matches(&carried), resolved);
            prop_assert!(ours || !resolved);
        }
    }
}
