//! Queries: which page of a list is requested.

use std::{collections::BTreeMap, ops::RangeInclusive};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use prefetch::fields::FieldError;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::http::problem::Problem;

/// The longest token, in characters.
const MAX_TOKEN: usize = 4096;

/// Holds the parameters of a query, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(pub BTreeMap<String, String>);

/// Tells which page of a list is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Tells how many rows it has at most.
    pub limit: usize,
    /// Where it begins; none for the first.
    pub next: Option<T>,
}

impl Query {
    /// Reads `limit` and `next`.
    ///
    /// # Errors
    /// A 400 that names every parameter that is not accepted, unknown ones included.
    pub fn page<T: DeserializeOwned>(&self, limits: RangeInclusive<usize>, usual: usize) -> Result<Page<T>, Problem> {
        self.page_beside(&[], limits, usual)
    }

    /// Reads `limit` and `next` beside the list's own parameters.
    ///
    /// # Errors
    /// As [`Query::page`].
    pub fn page_beside<T: DeserializeOwned>(
        &self,
        own: &[&str],
        limits: RangeInclusive<usize>,
        usual: usize,
    ) -> Result<Page<T>, Problem> {
        let mut errors = Vec::new();
        let mut page = Page {
            limit: usual,
            next: None,
        };
        let others = self.0.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        for (name, text) in others {
            if let Err(accepted) = page.take(name, text, own, &limits) {
                let name: String = name.chars().take(MAX_TOKEN).collect();
                errors.push(FieldError::new(name, Some(Value::String(text.clone())), accepted));
            }
        }
        if errors.is_empty() {
            Ok(page)
        } else {
            Err(Problem::fields(errors))
        }
    }
}

impl<T: DeserializeOwned> Page<T> {
    /// Takes a parameter; the error tells what is accepted.
    fn take(&mut self, name: &str, text: &str, own: &[&str], limits: &RangeInclusive<usize>) -> Result<(), String> {
        match name {
            "limit" => {
                let limit = whole(text).filter(|limit| limits.contains(limit));
                self.limit =
                    limit.ok_or_else(|| format!("a whole number from {} to {}", limits.start(), limits.end()))?;
            }
            "next" => self.next = Some(decoded(text).ok_or("what the page before gave as next")?),
            _ => {
                let names = [own, &["limit and next"]].concat().join(", ");
                return Err(format!(
                    "nothing, for there is no such parameter: the parameters are {names}"
                ));
            }
        }
        Ok(())
    }
}

/// Refuses a token that was once good, or is another list's.
pub fn stale() -> Problem {
    Problem::field("next", None, "what the page before gave as next, not long ago")
}

/// Writes where the next page begins as a token that needs no escapes.
pub fn token(next: &impl Serialize) -> String {
    let next = serde_json::to_vec(next).expect("a token is JSON");
    BASE64_URL_SAFE_NO_PAD.encode(next)
}

fn decoded<T: DeserializeOwned>(token: &str) -> Option<T> {
    let token = Some(token).filter(|token| token.len() <= MAX_TOKEN)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

fn whole(text: &str) -> Option<usize> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(parameters: &[(&str, &str)]) -> Result<Page<String>, Problem> {
        let parameters = parameters
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Query(parameters.collect()).page(1..=50, 20)
    }

    #[test]
    fn a_page_is_the_first_of_the_usual_size_where_nothing_is_said() {
        let expected = Page { limit: 20, next: None };
        assert_eq!(page(&[]), Ok(expected));
        let next = token(&"after this");
        let expected = Page {
            limit: 50,
            next: Some("after this".to_owned()),
        };
        assert_eq!(page(&[("limit", "50"), ("next", &next)]), Ok(expected));
    }

    #[test]
    fn what_is_no_parameter_or_no_value_of_it_is_refused() {
        for (name, text) in [
            ("limit", "0"),
            ("limit", "51"),
            ("limit", "+5"),
            ("limit", "5.0"),
            ("limit", ""),
            ("limit", "99999999999999999999"),
            ("limit", "1,2"),
            ("next", ""),
            ("next", "garbage!"),
            ("next", "MQ"),
            ("page", "2"),
        ] {
            let problem = page(&[(name, text)]).unwrap_err();
            assert!(
                problem.status() == 400 && problem.line().contains(name),
                "{name}={text}"
            );
        }
        assert!(page(&[("next", &token(&"x".repeat(4000)))]).is_err());
    }

    proptest! {
        #[test]
        fn any_token_is_read_or_refused(text in ".{0,60}") {
            if let Ok(page) = page(&[("next", &text)]) {
                prop_assert!(page.next.is_some());
            }
        }
    }
}
