//! Fields: what somebody wrote into a JSON object, and what is wrong with it.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use serde::Serialize;
use serde_json::{Map, Value};

/// Limits how many characters of a value are told back to whoever sent it.
const MAX_VALUE: usize = 200;
/// Limits how many characters of an unknown field's name are told back.
const MAX_NAME: usize = 512;
/// Limits how many fields are told of: nonsense is not told back in full.
const MAX_ERRORS: usize = 20;

/// Refuses a field's value: one sentence for all that somebody can set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldError {
    /// Where it stands, such as `images[3]`.
    pub field: String,
    /// Its value; not there where the field is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Says what would have been accepted.
    pub accepted: String,
}

impl FieldError {
    /// Refuses a field's value, or that there is none.
    pub fn new(field: impl Into<String>, value: Option<Value>, accepted: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            value: value.map(shortened),
            accepted: accepted.into(),
        }
    }

    /// Refuses a field that is none of those known.
    #[must_use]
    pub fn unknown(field: &str, value: Value, known: &[&str]) -> Self {
        let fields = known.join(", ");
        let field = field.chars().take(MAX_NAME).collect::<String>();
        Self::new(
            field,
            Some(value),
            format!("nothing, for there is no such field: the fields are {fields}"),
        )
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, accepted } = self;
        match value {
            Some(value) => write!(f, "{field}: {value} is not accepted: it takes {accepted}"),
            None => write!(f, "{field}: nothing is not accepted: it takes {accepted}"),
        }
    }
}

/// An object's fields, and what is wrong with them.
pub struct Fields {
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Takes an object's fields.
    #[must_use]
    pub fn new(fields: Map<String, Value>) -> Self {
        Self {
            fields,
            errors: Vec::new(),
        }
    }

    /// Gives a field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Notes that a value is not accepted, or is missing.
    pub fn refuse(&mut self, field: impl Into<String>, value: Option<Value>, accepted: impl Into<String>) {
        self.note(FieldError::new(field, value, accepted));
    }

    fn note(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    /// Reads a field by a function, whose error tells what is accepted; the default where the field is not there, or is not
    /// accepted, which is noted.
    pub fn read<T>(&mut self, name: &str, default: T, read: impl FnOnce(&Value) -> Result<T, String>) -> T {
        let Some(value) = self.fields.get(name) else {
            return default;
        };
        match read(value) {
            Ok(read) => read,
            Err(accepted) => {
                let value = value.clone();
                self.refuse(name, Some(value), accepted);
                default
            }
        }
    }

    /// Reads a text; none where the field is not there, or is not accepted, which is noted.
    pub fn text(&mut self, name: &str, accepted: &str, is_accepted: impl Fn(&str) -> bool) -> Option<String> {
        self.read(name, None, |value| match value {
            Value::String(text) if is_accepted(text) => Ok(Some(text.clone())),
            _ => Err(accepted.to_owned()),
        })
    }

    /// Reads a list of 1 to `max` texts, each once; none where the field is not there, or is not accepted, which is noted.
    pub fn texts(
        &mut self,
        name: &str,
        max: usize,
        accepted: &str,
        is_accepted: impl Fn(&str) -> bool,
    ) -> Option<Vec<String>> {
        self.read(name, None, |value| {
            let texts = texts(value, max, is_accepted);
            texts.map(Some).ok_or_else(|| accepted.to_owned())
        })
    }

    /// Reads a whole number; none where the field is not there, or is not accepted, which is noted.
    pub fn whole(&mut self, name: &str, accepted: RangeInclusive<u32>) -> Option<u32> {
        self.read(name, None, |value| {
            let whole = value.as_u64().and_then(|number| u32::try_from(number).ok());
            let whole = whole.filter(|number| accepted.contains(number));
            let words = || format!("a whole number from {} to {}", accepted.start(), accepted.end());
            whole.map(Some).ok_or_else(words)
        })
    }

    /// Reads whether something is so; not where the field is not there, or is not accepted, which is noted.
    pub fn boolean(&mut self, name: &str) -> bool {
        self.read(name, false, |value| {
            value.as_bool().ok_or_else(|| "true or false".to_owned())
        })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// What was noted, and every field that is none of those known.
    pub fn finish(mut self, known: &[&str]) -> Result<(), Vec<FieldError>> {
        let unknown: Vec<String> = self
            .fields
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .cloned()
            .collect();
        for name in unknown {
            let value = self.fields.remove(&name).unwrap_or_default();
            self.note(FieldError::unknown(&name, value, known));
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }
}

/// Reads a list of 1 to `max` texts, all of them accepted, each once.
pub fn texts(value: &Value, max: usize, is_accepted: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let list = value.as_array().filter(|list| (1..=max).contains(&list.len()))?;
    let texts: Option<BTreeSet<&str>> = list
        .iter()
        .map(|text| text.as_str().filter(|text| is_accepted(text)))
        .collect();
    Some(texts?.into_iter().map(str::to_owned).collect())
}

/// Cuts a value to what may be told back: a long text is cut, and of a long list or object only its kind is told.
fn shortened(value: Value) -> Value {
    let kind = match &value {
        Value::String(text) if text.chars().count() > MAX_VALUE => {
            return Value::String(text.chars().take(MAX_VALUE).collect());
        }
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        _ => return value,
    };
    if value.to_string().len() > MAX_VALUE {
        Value::String(kind.to_owned())
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_long_is_not_told_back_in_full() {
        for (value, expected) in [
            (json!("x".repeat(300)), json!("x".repeat(200))),
            (json!([["x".repeat(300)]]), json!("a list")),
            (json!({"x": "x".repeat(300)}), json!("an object")),
            (json!([1]), json!([1])),
        ] {
            assert_eq!(FieldError::new("f", Some(value), "").value, Some(expected));
        }
    }

    #[test]
    fn a_field_is_told_on_one_line_with_its_value_and_what_is_accepted() {
        let wrong = FieldError::new("keep", Some(json!("x")), "a whole number from 1 to 50");
        let expected = "keep: \"x\" is not accepted: it takes a whole number from 1 to 50";
        assert_eq!(wrong.to_string(), expected);
        let missing = FieldError::new("keep", None, "a whole number").to_string();
        assert_eq!(missing, "keep: nothing is not accepted: it takes a whole number");
    }

    #[test]
    fn every_field_that_is_wrong_or_unknown_is_told_and_those_that_are_right_are_read() {
        let given = json!({"text": 1, "texts": [], "whole": -1, "boolean": "true", "more": null, "right": 3});
        let Value::Object(given) = given else { panic!() };
        let mut fields = Fields::new(given);
        assert_eq!(fields.text("text", "a text", |_| true), None);
        assert_eq!(fields.texts("texts", 3, "texts", |_| true), None);
        assert_eq!(fields.whole("whole", 1..=9), None);
        assert!(!fields.boolean("boolean"));
        assert_eq!(
            (fields.whole("right", 1..=9), fields.whole("missing", 1..=9)),
            (Some(3), None)
        );
        let errors = fields
            .finish(&["text", "texts", "whole", "boolean", "right"])
            .unwrap_err();
        let names: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(names, ["text", "texts", "whole", "boolean", "more"]);
    }
}
