//! TOML of containerd's settings, as the JSON that it stands for.

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue, Error};

/// Reads TOML.
///
/// # Errors
/// The parser's.
pub fn read(text: &str) -> Result<Map<String, Value>, Error> {
    Ok(object(DeTable::parse(text)?.get_ref()))
}

/// Returns the keys of the table of this name in the order in which they stand; none where it is no TOML, or has no such table.
#[must_use]
pub fn keys_in_order(text: &str, name: &str) -> Vec<String> {
    let parsed = DeTable::parse(text).ok();
    let table = parsed
        .as_ref()
        .and_then(|table| table.get_ref().get(name)?.get_ref().as_table());
    let mut keys: Vec<_> = table.into_iter().flat_map(|table| table.keys()).collect();
    keys.sort_by_key(|key| key.span().start);
    keys.into_iter().map(|key| key.get_ref().to_string()).collect()
}

fn object(table: &DeTable<'_>) -> Map<String, Value> {
    let entries = table.iter();
    entries
        .map(|(key, entry)| (key.get_ref().to_string(), value(entry.get_ref())))
        .collect()
}

fn value(toml: &DeValue<'_>) -> Value {
    match toml {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(is) => Value::Bool(*is),
        DeValue::Integer(number) => {
            Value::from(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_default())
        }
        DeValue::Array(items) => items.iter().map(|item| value(item.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(object(table)),
        // nothing that is read has one: in the place of something else it is refused like any number
        DeValue::Float(_) | DeValue::Datetime(_) => Value::from(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{keys_in_order, read};

    #[test]
    fn toml_is_read_to_the_json_that_it_stands_for() {
        let text = "a = [0x1F, 'b', true]\n[c.\"d.e\"]\nf = \"g\"\n[[h]]\ni = 1979-05-27\n";
        let expected = json!({"a": [31, "b", true], "c": {"d.e": {"f": "g"}}, "h": [{"i": 0}]});
        assert_eq!(json!(read(text).unwrap()), expected);
        assert!(read("a = ").is_err());
    }

    #[test]
    fn keys_are_told_in_the_order_in_which_they_stand() {
        let text = "[host.z]\n[host.'a']\nx = 1\n[other]\n[host.\"m\"]\n";
        assert_eq!(keys_in_order(text, "host"), ["z", "a", "m"]);
        assert_eq!(keys_in_order(text, "none"), [""; 0]);
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_is_read_to_its_end(text in "([\\PC\n]|\\[|\\[\\[|\\{|= |'|\"|\\.){0,200}") {
            prop_assert_eq!(read(&text).is_ok(), read(&text).is_ok());
            prop_assert_eq!(keys_in_order(&text, "host"), keys_in_order(&text, "host"));
        }
    }
}
