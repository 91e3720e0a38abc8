//! A set of nodes in little room, which is the same in whatever order they are added.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, de::Visitor};
use sha2::{Digest, Sha256};

/// Limits how many nodes a set tells apart: more are estimated, within some 13 % in two of three cases (k minimum values:
/// Bar-Yossef et al., Counting distinct elements in a data stream, 2002).
const MAX_HASHES: usize = 64;
/// Counts the bytes of a hash.
const HASH_BYTES: usize = 4;

/// A set of nodes by their ids: it keeps the 64 smallest hashes of all that were added, and estimates their number from those.
///
/// Is the same in whatever order, and however often, nodes are added and sets merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(BTreeSet<u32>);

impl NodeSet {
    /// Adds a node.
    pub fn add(&mut self, node: &str) {
        let hash = Sha256::digest(node);
        self.0.insert(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
        self.shorten();
    }

    /// Adds the nodes of another set.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
        self.shorten();
    }

    /// Returns true where it has no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many nodes it has: exactly up to 63, else by an estimate.
    #[must_use]
    pub fn count(&self) -> u64 {
        let hashes = self.0.len() as u64;
        match self.0.last() {
            Some(largest) if self.is_estimated() => ((hashes - 1) << 32) / (u64::from(*largest) + 1),
            _ => hashes,
        }
    }

    /// Returns true where it may have more nodes than it tells apart, so that their number is an estimate.
    #[must_use]
    pub fn is_estimated(&self) -> bool {
        self.0.len() == MAX_HASHES
    }

    fn shorten(&mut self) {
        while self.0.len() > MAX_HASHES {
            self.0.pop_last();
        }
    }
}

impl Serialize for NodeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|hash| hash.to_be_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for NodeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Hashes)
    }
}

struct Hashes;

impl Visitor<'_> for Hashes {
    type Value = NodeSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_HASHES} hashes of {HASH_BYTES} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<NodeSet, E> {
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() || hashes.len() > MAX_HASHES {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(NodeSet(hashes.iter().map(|hash| u32::from_be_bytes(*hash)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(nodes: impl IntoIterator<Item = usize>) -> NodeSet {
        let mut set = NodeSet::default();
        nodes.into_iter().for_each(|node| set.add(&format!("i-{node:017x}")));
        set
    }

    #[test]
    fn few_nodes_are_counted_and_many_estimated() {
        assert_eq!([0, 1, 10, 63].map(|nodes| of(0..nodes).count()), [0, 1, 10, 63]);
        assert_eq!(
            [63, 64, 200].map(|nodes| of(0..nodes).is_estimated()),
            [false, true, true]
        );
        for nodes in [64, 200, 1_000, 10_000, 30_000] {
            let (count, nodes) = (of(0..nodes).count(), nodes as u64);
            assert!(count.abs_diff(nodes) <= nodes * 2 / 5, "{count} of {nodes}");
        }
    }

    #[test]
    fn bytes_that_are_no_hashes_are_no_set() {
        for bytes in [1, 3, 260] {
            let value = aws_sdk_dynamodb::types::AttributeValue::B(vec![0; bytes].into());
            assert!(
                serde_dynamo::from_attribute_value::<_, NodeSet>(value).is_err(),
                "{bytes}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_set_is_the_same_in_any_order_and_repetition_and_is_read_as_it_is_written(
            nodes in prop::collection::vec(0..500_usize, 0..300), cut in 0..300_usize,
        ) {
            let (one, other) = nodes.split_at(cut.min(nodes.len()));
            let whole = of(nodes.iter().copied());
            let mut merged = of(other.iter().rev().copied());
            merged.merge(&of(one.iter().copied()));
            merged.merge(&of(one.iter().copied()));
            prop_assert_eq!(&merged, &whole);
            let value: aws_sdk_dynamodb::types::AttributeValue = serde_dynamo::to_attribute_value(&whole).unwrap();
            prop_assert!(value.is_b());
            prop_assert_eq!(serde_dynamo::from_attribute_value::<_, NodeSet>(value).unwrap(), whole);
        }
    }
}
