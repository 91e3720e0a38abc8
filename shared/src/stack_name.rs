//! Names of stacks: which of them AWS would refuse for what the template makes of them.

/// The longest name: the state machine's, `<stack>-bake-snapshot`, has at most 80 characters (Step Functions,
/// CreateStateMachine). The document's, `<stack>-prefetch-images`, may have 128, and what CloudFormation names it cuts.
const MAX_LENGTH: usize = 66;
/// Names what SSM keeps for AWS: names of documents begin with none of the first three (CreateDocument), names of
/// parameters with neither the first nor the last (PutParameter), in whatever case.
const RESERVED: [&str; 4] = ["aws", "amazon", "amzn", "ssm"];

/// Returns why a stack may not have this name, in one sentence; none where it may.
///
/// `local/make/stack_name.py` says the same before a deployment; both are held to `tests/stack-names.json`.
#[must_use]
pub fn refusal(stack: &str) -> Option<String> {
    let accepted = if !is_stack_name(stack) {
        "letters, digits and '-', a letter first".to_owned()
    } else if let Some(reserved) = RESERVED.iter().find(|reserved| begins_with(stack, reserved)) {
        format!(
            "a name that does not begin with {reserved}: SSM keeps that for AWS, in documents' and parameters' names"
        )
    } else if stack.len() > MAX_LENGTH {
        format!("at most {MAX_LENGTH} characters, for {stack}-bake-snapshot, a state machine's name, has at most 80")
    } else {
        return None;
    };
    Some(format!(
        "the stack's name \"{stack}\" is not accepted: it takes {accepted}"
    ))
}

fn is_stack_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '-')
}

fn begins_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_name_that_aws_refuses_is_refused_with_what_is_accepted() {
        let cases: BTreeMap<String, Option<String>> =
            serde_json::from_str(include_str!("../../tests/stack-names.json")).unwrap();
        for (name, expected) in cases {
            assert_eq!(refusal(&name), expected, "{name}");
        }
    }

    #[test]
    fn the_longest_name_makes_the_longest_name_of_a_state_machine() {
        assert_eq!(refusal(&"a".repeat(66)), None);
        assert_eq!(format!("{}-bake-snapshot", "a".repeat(66)).len(), 80);
        assert!(refusal(&"a".repeat(67)).unwrap().contains("at most 66 characters"));
    }
}
