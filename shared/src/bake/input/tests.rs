use super::*;
use crate::rule::parse_rules;

fn defaults(text: &str) -> Result<Map<String, Value>, String> {
    let rules = parse_rules(r#"[{"name": "gpu"}]"#).unwrap();
    let stack = Stack {
        rules: &rules,
        registry: "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        region: "eu-central-1",
        defaults: text,
    };
    stack.defaults().map_err(|error| error.to_string())
}

#[test]
fn defaults_that_a_bake_could_not_use_alone_are_refused() {
    for (text, expected) in [
        (
            "{\"rules\": [\"gone\"]}",
            "rules: [\"gone\"] is not accepted: it takes a list of rules of the stack: gpu",
        ),
        (
            r#"{"architectures": ["x86_64", "arm64"], "instanceType": "m6i.large"}"#,
            "instanceType: \"m6i.large\" is not accepted: it takes one type for each architecture",
        ),
    ] {
        let error = defaults(text).unwrap_err();
        assert!(error.starts_with("the stack's parameter BakeDefaults: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn defaults_that_a_bake_can_use_alone_are_read() {
    for text in [
        "{}",
        r#"{"instanceType": "m6i.large"}"#,
        r#"{"rules": ["gpu"], "architectures": ["arm64"], "instanceType": "m6g.large"}"#,
        r#"{"architectures": ["x86_64", "arm64"], "instanceType": {"x86_64": "m6i.large", "arm64": "m6g.large"}}"#,
    ] {
        assert_eq!(
            json!(defaults(text).unwrap()),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }
}
