//! Says when rows of the table expire.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

/// Writes the attribute by which DynamoDB deletes a row after a moment: in seconds (DynamoDB developer guide, Time to Live).
#[must_use]
pub fn expires_at(moment: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(moment.timestamp().to_string())
}
