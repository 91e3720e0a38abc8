//! The environment: how much of it the longest settings may take.

/// Bounds the bytes of `RULES`: what the function with the longest names and ARNs beside it, `jobs`, has left of 4,096
/// (Lambda quotas), and some for settings to come.
const MAX_RULES: usize = 2_420;
/// Bounds the bytes of `RULES` and `BAKE_DEFAULTS` together: what `bake-plan` has left, which has both.
const MAX_RULES_AND_BAKE_DEFAULTS: usize = 2_930;

/// Tells, by a look-up from variable name to value, why the settings do not fit into every function's environment.
pub fn refusal(look_up: impl Fn(&str) -> Option<String>) -> Option<String> {
    let [rules, defaults] = ["RULES", "BAKE_DEFAULTS"].map(|name| size(&look_up(name).unwrap_or_default()));
    let counted = "in which every quote, backslash and line break counts twice, and there is room for";
    if rules > MAX_RULES {
        Some(format!(
            "environment variable RULES takes {rules} bytes of a function's environment, {counted} {MAX_RULES}: leave out \
             line breaks, spaces and what is a default"
        ))
    } else if rules + defaults > MAX_RULES_AND_BAKE_DEFAULTS {
        Some(format!(
            "environment variables RULES and BAKE_DEFAULTS take {} bytes of a function's environment, {counted} \
             {MAX_RULES_AND_BAKE_DEFAULTS}: shorten the stack's parameter BakeDefaults or Rules",
            rules + defaults
        ))
    } else {
        None
    }
}

/// Counts the bytes of a value in the environment, which Lambda measures as JSON, beside the quotes around it.
fn size(value: &str) -> usize {
    serde_json::Value::from(value).to_string().len() - 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rules: &str, defaults: &str) -> Option<String> {
        refusal(|name| match name {
            "RULES" => Some(rules.to_owned()),
            "BAKE_DEFAULTS" => Some(defaults.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn quotes_and_line_breaks_count_twice() {
        assert_eq!(refused(&"r".repeat(2_420), ""), None);
        let sentence = refused(&"\"".repeat(1_211), "").unwrap();
        assert!(
            sentence.starts_with("environment variable RULES takes 2422 bytes"),
            "{sentence}"
        );
        assert_eq!(refused(&"\"".repeat(1_210), ""), None);
        assert!(refused(&"\n".repeat(1_211), "").is_some());
        let sentence = refused(&"r".repeat(2_400), &"\"".repeat(266)).unwrap();
        assert!(
            sentence.starts_with("environment variables RULES and BAKE_DEFAULTS take 2932"),
            "{sentence}"
        );
        assert_eq!(refused(&"r".repeat(2_400), &"\"".repeat(265)), None);
    }
}
