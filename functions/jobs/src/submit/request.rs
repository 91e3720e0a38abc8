//! A job's body, checked as far as that goes without asking AWS.

use std::collections::{BTreeMap, BTreeSet};

use prefetch::{
    fields::{Fields, texts},
    node::{MAX_NODE_TAGS, MAX_TAG_VALUES, is_instance_id},
    requested_image::{self, RequestedImage},
    rule::{is_name, is_tag_key},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::http::problem::Problem;

/// Limits how many instances one job names at most.
const MAX_IDS: usize = 500;
/// The longest value of an EC2 tag, in characters (EC2 API reference).
const MAX_TAG_VALUE: usize = 256;

const FIELDS: [&str; 5] = ["images", "sameDigest", "rule", "nodes", "dryRun"];

/// Holds a job as it is requested; written out it is the body that requests it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRequest {
    /// The images; none where the rule's newest are wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<RequestedImage>,
    /// The rule's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The nodes in the place of the rule's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSelection>,
    /// Is true where nothing is to be sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Selects nodes by tags or by ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeSelection {
    /// Those with all these tags, any of a key's values.
    Tags(BTreeMap<String, Vec<String>>),
    /// Those with these instance ids, each once.
    Ids(Vec<String>),
}

impl JobRequest {
    /// Reads a job's body; `registry` is the host name of this account's registry.
    ///
    /// # Errors
    /// A 400 that names every field that is not accepted.
    pub fn parse(body: Value, registry: &str) -> Result<Self, Problem> {
        let mut fields = fields(body)?;
        let request = Self::read(&mut fields, registry);
        fields.finish(&FIELDS)?;
        Ok(request)
    }

    /// Returns the same request for these images.
    pub fn with_images(&self, images: Vec<RequestedImage>) -> Self {
        Self { images, ..self.clone() }
    }

    /// Takes a job's fields out of a body that may have others; what is wrong with them is noted there.
    pub fn read(fields: &mut Fields, registry: &str) -> Self {
        if fields.get("images").is_none() && fields.get("rule").is_none() {
            fields.refuse("images", None, "images, a rule, or both");
        }
        if let Some(other) = fields
            .get("sameDigest")
            .filter(|value| **value != Value::Bool(true))
            .cloned()
        {
            let accepted = "true: what a tag is is asked once, and all nodes of a job get that digest";
            fields.refuse("sameDigest", Some(other), accepted);
        }
        Self {
            images: requested_image::images(fields, registry),
            rule: fields.text("rule", "1 to 32 lower-case letters, digits and '-'", is_name),
            nodes: nodes(fields),
            dry_run: fields.boolean("dryRun"),
        }
    }
}

/// Takes a body's fields.
///
/// # Errors
/// A 400 where it is no object.
pub fn fields(body: Value) -> Result<Fields, Problem> {
    match body {
        Value::Object(fields) => Ok(Fields::new(fields)),
        _ => Err(Problem::bad_request("the body is no JSON object")),
    }
}

fn nodes(fields: &mut Fields) -> Option<NodeSelection> {
    let value = fields.get("nodes")?.clone();
    let selection = match &value {
        Value::Object(selection) if selection.len() == 1 => selection.iter().next(),
        _ => None,
    };
    match selection {
        Some((kind, Value::Object(tags))) if kind == "tags" => node_tags(fields, tags),
        Some((kind, Value::Array(ids))) if kind == "ids" => node_ids(fields, ids),
        _ => {
            let accepted = r#"either {"tags": {"key": ["value"]}} or {"ids": ["i-…"]}"#;
            fields.refuse("nodes", Some(value), accepted);
            None
        }
    }
}

fn node_tags(fields: &mut Fields, tags: &Map<String, Value>) -> Option<NodeSelection> {
    if !(1..=MAX_NODE_TAGS).contains(&tags.len()) {
        let accepted = format!("1 to {MAX_NODE_TAGS} EC2 tag keys, each with its values");
        fields.refuse("nodes.tags", Some(Value::Object(tags.clone())), accepted);
        return None;
    }
    let mut selected = BTreeMap::new();
    for (key, values) in tags {
        let texts = texts(values, MAX_TAG_VALUES, |text| {
            (1..=MAX_TAG_VALUE).contains(&text.chars().count())
        });
        match texts {
            Some(texts) if is_tag_key(key) => {
                selected.insert(key.clone(), texts);
            }
            _ => {
                let accepted = format!(
                    "a tag key of 1 to 128 letters, digits, spaces and _.:/=@-, and a list of 1 to {MAX_TAG_VALUES} values of 1 to {MAX_TAG_VALUE} characters"
                );
                let key: String = key.chars().take(MAX_TAG_VALUE).collect();
                fields.refuse(format!("nodes.tags.{key}"), Some(values.clone()), accepted);
            }
        }
    }
    Some(NodeSelection::Tags(selected))
}

fn node_ids(fields: &mut Fields, ids: &[Value]) -> Option<NodeSelection> {
    if !(1..=MAX_IDS).contains(&ids.len()) {
        let accepted = format!("a list of 1 to {MAX_IDS} instance ids");
        fields.refuse("nodes.ids", Some(Value::Array(ids.to_vec())), accepted);
        return None;
    }
    let mut selected = BTreeSet::new();
    for (place, id) in ids.iter().enumerate() {
        if let Some(id) = id.as_str().filter(|id| is_instance_id(id)) {
            selected.insert(id.to_owned());
        } else {
            let accepted = "an instance id: i- and 8 or 17 hexadecimal digits";
            fields.refuse(format!("nodes.ids[{place}]"), Some(id.clone()), accepted);
        }
    }
    Some(NodeSelection::Ids(selected.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

    fn parse(body: Value) -> Result<JobRequest, Problem> {
        JobRequest::parse(body, REGISTRY)
    }

    /// Gives the first field that a body is refused for, and what would have been accepted.
    fn refused(body: Value) -> (String, String) {
        let problem = serde_json::to_value(parse(body).unwrap_err()).unwrap();
        assert_eq!(problem["status"], 400);
        let text = |name: &str| problem["errors"][0][name].as_str().unwrap().to_owned();
        (text("field"), text("accepted"))
    }

    #[test]
    fn what_names_no_image_is_refused_by_its_place() {
        for text in [
            "",
            "localhost:5000/app:v1",
            "docker.io/",
            "team/app:$(id)",
            "team/app:v1;reboot",
            "Team/App:v1",
            "../app:v1",
            "app:v1@sha256:short",
            "app:v1:v2",
            "app:v1 ",
            "app:\n",
            "app@",
            "täm/app:v1",
            &format!("app:{}", "x".repeat(600)),
        ] {
            assert_eq!(refused(json!({"images": ["app:v1", text]})).0, "images[1]", "{text}");
        }
        let (field, accepted) = refused(json!({"images": [1]}));
        assert_eq!((field.as_str(), accepted.as_str()), ("images[0]", "a text"));
    }

    #[test]
    fn a_body_is_refused_by_the_field_that_is_wrong() {
        let tags =
            |count: usize| json!({"tags": (0..count).map(|k| (k.to_string(), json!(["x"]))).collect::<Map<_, _>>()});
        for (body, field) in [
            (json!({}), "images"),
            (json!({"images": []}), "images"),
            (json!({"images": null}), "images"),
            (json!({"images": "app:v1"}), "images"),
            (json!({"images": vec!["app:v1"; 101]}), "images"),
            (json!({"rule": "A"}), "rule"),
            (json!({"rule": 1}), "rule"),
            (json!({"rule": null}), "rule"),
            (json!({"rule": "a", "dryRun": "true"}), "dryRun"),
            (json!({"rule": "a", "dryrun": true}), "dryrun"),
            (json!({"rule": "a", "nodes": null}), "nodes"),
            (json!({"rule": "a", "nodes": {}}), "nodes"),
            (
                json!({"rule": "a", "nodes": {"ids": ["i-0abc0000000000001"], "tags": {}}}),
                "nodes",
            ),
            (json!({"rule": "a", "nodes": {"names": []}}), "nodes"),
            (json!({"rule": "a", "nodes": {"ids": []}}), "nodes.ids"),
            (
                json!({"rule": "a", "nodes": {"ids": vec!["i-0abc0000000000001"; 501]}}),
                "nodes.ids",
            ),
            (
                json!({"rule": "a", "nodes": {"ids": ["i-0abc0000000000001", "i-x"]}}),
                "nodes.ids[1]",
            ),
            (json!({"rule": "a", "nodes": tags(0)}), "nodes.tags"),
            (json!({"rule": "a", "nodes": tags(5)}), "nodes.tags"),
            (
                json!({"rule": "a", "nodes": {"tags": {"team": "ml"}}}),
                "nodes.tags.team",
            ),
            (json!({"rule": "a", "nodes": {"tags": {"team": []}}}), "nodes.tags.team"),
            (
                json!({"rule": "a", "nodes": {"tags": {"team": [""]}}}),
                "nodes.tags.team",
            ),
            (
                json!({"rule": "a", "nodes": {"tags": {"te*m": ["x"]}}}),
                "nodes.tags.te*m",
            ),
        ] {
            assert_eq!(refused(body.clone()).0, field, "{body}");
        }
        for body in [json!([]), json!(null), json!("images"), json!(1)] {
            assert_eq!(parse(body).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn every_field_that_is_wrong_is_told_at_once_but_no_flood_of_them() {
        let problem = parse(json!({"images": vec![1; 50], "rule": 1, "x": 1})).unwrap_err();
        let problem = serde_json::to_value(problem).unwrap();
        assert_eq!(problem["errors"].as_array().unwrap().len(), 20);
    }

    #[test]
    fn a_request_is_written_as_the_body_that_requests_it() {
        for body in [
            json!({"images": ["app:v1", format!("{REGISTRY}/app@{DIGEST}")], "nodes": {"tags": {"team": ["ml", "web"]}}}),
            json!({"rule": "gpu", "nodes": {"ids": ["i-0abc0000000000001"]}, "dryRun": true}),
        ] {
            assert_eq!(serde_json::to_value(parse(body.clone()).unwrap()).unwrap(), body);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[a-z/.:@-]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let key = "(images|rule|nodes|tags|ids|dryRun|.{0,3})";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..5).prop_map(|object| object.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_is_accepted_or_a_fault_of_the_caller(body in any_json()) {
            match parse(body) {
                Ok(request) => {
                    let body = serde_json::to_value(&request).unwrap();
                    prop_assert_eq!(parse(body), Ok(request));
                }
                Err(problem) => prop_assert_eq!(problem.status(), 400),
            }
        }
    }
}
