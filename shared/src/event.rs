//! Events: what EventBridge delivers, as far as it is used.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// An event of EventBridge.
///
/// A field that not everybody uses and that cannot be used is none: it is no reason to leave an event undone whose
/// reader would not have looked at it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// Who raised it, such as `aws.ec2`.
    pub source: String,
    /// Says what kind of event it is.
    pub detail_type: String,
    /// Says what its source says.
    pub detail: Value,
    /// The account that it is of.
    #[serde(default, deserialize_with = "usable")]
    pub account: Option<String>,
    /// The Region that it is of.
    #[serde(default, deserialize_with = "usable")]
    pub region: Option<String>,
    /// Tells when it was raised.
    #[serde(default, deserialize_with = "usable")]
    pub time: Option<DateTime<Utc>>,
}

fn usable<'de, D: Deserializer<'de>, T: DeserializeOwned>(field: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(field)?).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(change: impl FnOnce(&mut Value)) -> Result<Event, serde_json::Error> {
        let mut event = json!({
            "version": "0", "id": "1", "source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification",
            "account": "123456789012", "region": "eu-central-1", "time": "2026-11-16T08:00:00Z", "resources": [],
            "detail": {"state": "running"},
        });
        change(&mut event);
        serde_json::from_value(event)
    }

    #[test]
    fn an_event_is_read_as_eventbridge_writes_it() {
        let event = event(|_| {}).unwrap();
        assert_eq!(event.source, "aws.ec2");
        assert_eq!(event.detail_type, "EC2 Instance State-change Notification");
        assert_eq!(event.account.as_deref(), Some("123456789012"));
        assert_eq!(event.region.as_deref(), Some("eu-central-1"));
        assert_eq!(event.time.unwrap().to_rfc3339(), "2026-11-16T08:00:00+00:00");
        assert_eq!(event.detail, json!({"state": "running"}));
    }

    #[test]
    fn a_time_that_is_none_is_no_reason_to_refuse_the_event() {
        for time in [
            json!("yesterday"),
            json!(""),
            json!(1_793_000_000),
            json!(null),
            json!({}),
        ] {
            assert_eq!(
                event(|event| event["time"] = time.clone()).unwrap().time,
                None,
                "{time}"
            );
        }
        let without = event(|event| drop(event.as_object_mut().unwrap().remove("time")));
        assert_eq!(without.unwrap().time, None);
    }

    #[test]
    fn no_field_that_is_not_needed_by_everybody_is_a_reason_either() {
        for field in ["version", "id", "account", "region", "time", "resources"] {
            for value in [json!(null), json!(7), json!({}), json!([7])] {
                assert!(event(|event| event[field] = value.clone()).is_ok(), "{field}: {value}");
            }
        }
        for field in ["source", "detail-type", "detail"] {
            let without = event(|event| drop(event.as_object_mut().unwrap().remove(field)));
            assert!(without.is_err(), "{field}");
        }
    }
}
