//! The environment: how much of it the longest settings may take.

/// Bounds the bytes of `RULES` and `CENTRAL_REGISTRIES`: what the function with the longest names and ARNs beside them, `jobs`,
/// has left of 4,096 (Lambda quotas), and some for settings to come.
const MAX_RULES: usize = 2_394;
/// Bounds the bytes of these and `BAKE_DEFAULTS` together: what `bake-plan` has left, which has them all.
const MAX_RULES_AND_BAKE_DEFAULTS: usize = 2_904;

/// Tells, by a look-up from variable name to value, why the settings do not fit into every function's environment.
pub fn refusal(look_up: impl Fn(&str) -> Option<String>) -> Option<String> {
    let named = ["RULES", "CENTRAL_REGISTRIES", "BAKE_DEFAULTS"];
    let [rules, central, defaults] = named.map(|name| size(&look_up(name).unwrap_or_default()));
    let (these, also) = match central {
        0 => ("variable RULES takes", ""),
        _ => ("variables RULES and CENTRAL_REGISTRIES take", ", CENTRAL_REGISTRIES"),
    };
    let counted = "in which every quote, backslash and line break counts twice, and there is room for";
    let (all, most) = (rules + central + defaults, MAX_RULES_AND_BAKE_DEFAULTS);
    if rules + central > MAX_RULES {
        Some(format!(
            "environment {these} {} bytes of a function's environment, {counted} {MAX_RULES}: leave out \
             line breaks, spaces and what is a default",
            rules + central
        ))
    } else if all > most {
        Some(format!(
            "environment variables RULES{also} and BAKE_DEFAULTS take {all} bytes of a function's environment, {counted} \
             {most}: shorten the stack's parameter BakeDefaults or Rules"
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
        refused_with("", rules, defaults)
    }

    fn refused_with(central: &str, rules: &str, defaults: &str) -> Option<String> {
        refusal(|name| match name {
            "CENTRAL_REGISTRIES" => Some(central.to_owned()),
            "RULES" => Some(rules.to_owned()),
            "BAKE_DEFAULTS" => Some(defaults.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn quotes_and_line_breaks_count_twice() {
        assert_eq!(refused(&"r".repeat(2_394), ""), None);
        let sentence = refused(&"\"".repeat(1_198), "").unwrap();
        assert!(
            sentence.starts_with("environment variable RULES takes 2396 bytes"),
            "{sentence}"
        );
        assert_eq!(refused(&"\"".repeat(1_197), ""), None);
        assert!(refused(&"\n".repeat(1_198), "").is_some());
        let sentence = refused(&"r".repeat(2_390), &"\"".repeat(258)).unwrap();
        assert!(
            sentence.starts_with("environment variables RULES and BAKE_DEFAULTS take 2906"),
            "{sentence}"
        );
        assert_eq!(refused(&"r".repeat(2_390), &"\"".repeat(257)), None);
    }

    #[test]
    fn central_registries_take_of_the_same_room() {
        let central = "210987654321/ap-southeast-2";
        assert_eq!(refused_with(central, &"r".repeat(2_367), ""), None);
        let sentence = refused_with(central, &"r".repeat(2_368), "").unwrap();
        assert!(
            sentence.starts_with("environment variables RULES and CENTRAL_REGISTRIES take 2395 bytes"),
            "{sentence}"
        );
        let sentence = refused_with(central, &"r".repeat(2_000), &"b".repeat(878)).unwrap();
        assert!(
            sentence.starts_with("environment variables RULES, CENTRAL_REGISTRIES and BAKE_DEFAULTS take 2905 bytes"),
            "{sentence}"
        );
    }
}
