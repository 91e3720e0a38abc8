//! Lists of EC2, by the tags of what is ours.

use aws_sdk_ec2::types::Filter;

use crate::snapshot::KeyValue;

/// Bounds the instances or snapshots of one page (EC2 API reference).
pub const PAGE_SIZE: i32 = 1000;
/// Says why something is left that EC2 lists though it does not carry the tags that were asked for.
pub const NOT_OURS: &str = "EC2 lists it, and does not say that it has the tags that were asked for";

/// Asks for what carries tags.
pub fn filters(tags: &[KeyValue]) -> Vec<Filter> {
    let filter = |(key, value): &KeyValue| Filter::builder().name(format!("tag:{key}")).values(value).build();
    tags.iter().map(filter).collect()
}
