//! YAML of Kubernetes' configuration files, as the JSON that it stands for.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Number, Value};

/// Bounds the YAML that is read, in bytes: a credential provider's configuration has some thousand.
const MAX_YAML: usize = 64 << 10;

/// Bound the brackets, and the markers at the beginning of a line, that are read: nesting deeper than the stack would end
/// the program.
const MAX_BRACKETS: usize = 1000;
const MAX_MARKERS: usize = 100;

/// Reads JSON, or the first document of YAML; none where it is neither.
#[must_use]
pub fn read(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    if text.len() > MAX_YAML || is_deep(text) {
        return None;
    }
    value(Yaml::load_from_str(text).ok()?.first()?)
}

fn is_deep(text: &str) -> bool {
    let markers = |line: &str| {
        line.chars()
            .take_while(|c| " \t-?:!&".contains(*c))
            .filter(|c| !c.is_whitespace())
            .count()
    };
    text.matches(['[', '{']).count() > MAX_BRACKETS || text.lines().any(|line| markers(line) > MAX_MARKERS)
}

fn value(yaml: &Yaml<'_>) -> Option<Value> {
    Some(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(is)) => Value::Bool(*is),
        Yaml::Value(Scalar::Integer(number)) => Value::Number((*number).into()),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::Number(Number::from_f64(number.into_inner())?),
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect::<Option<_>>()?),
        Yaml::Mapping(entries) => {
            let entry = |(key, entry): (&Yaml<'_>, &Yaml<'_>)| Some((key.as_str()?.to_owned(), value(entry)?));
            Value::Object(entries.iter().map(entry).collect::<Option<Map<_, _>>>()?)
        }
        Yaml::Tagged(_, inner) => value(inner)?,
        Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::read;

    #[test]
    fn yaml_and_json_are_read_to_the_same() {
        let expected = json!({"a": [1, "2", true, null], "b": {"c": "5%"}});
        assert_eq!(read(&expected.to_string()), Some(expected.clone()));
        assert_eq!(
            read("---\na:\n- 1\n- '2'\n- true\n- ~\nb:\n  c: \"5%\" # a comment\n"),
            Some(expected)
        );
        assert_eq!(read("a: [\n"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        for text in [
            "[".repeat(60_000),
            "- ".repeat(30_000),
            "[\n".repeat(30_000),
            "? ".repeat(30_000),
        ] {
            assert_eq!(read(&text), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_is_read_to_its_end(text in "([\\PC\n]|- |\\? |: |\\[|\\{|&a|\\*a|!!str ){0,200}") {
            prop_assert_eq!(read(&text), read(&text));
        }
    }
}
