//! The authorization that a registry wants: its challenge, and the token that it leads to.

use std::fmt::Write;

use http::{HeaderMap, HeaderValue, Uri, header::WWW_AUTHENTICATE};
use serde::Deserialize;

/// Bounds the answer with a token that is read, in bytes.
pub const MAX_TOKEN: usize = 1 << 20;
/// Bounds the challenge that is read, in bytes.
const MAX_CHALLENGE: usize = 8 << 10;

/// A challenge for a token (distribution, token authentication).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The address that gives tokens.
    pub realm: String,
    /// Tells for which service.
    pub service: String,
    /// For what.
    pub scope: String,
}

impl Challenge {
    /// Finds the first challenge for a token in an answer's headers.
    #[must_use]
    pub fn in_headers(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        values.into_iter().find_map(|value| Self::parse(value.to_str().ok()?))
    }

    /// Parses a challenge: `Bearer realm="https://auth.example/token",service="reg.example",scope="repository:app:pull"`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.get(..MAX_CHALLENGE).unwrap_or(text).trim_start().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut challenge = Self::default();
        while let Some((name, value, after)) = parameter(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value,
                "service" => challenge.service = value,
                "scope" => challenge.scope = value,
                _ => {}
            }
            rest = after;
        }
        Some(challenge).filter(|challenge| !challenge.realm.is_empty())
    }

    /// Returns the address that gives a token to pull from a repository.
    #[must_use]
    pub fn url(&self, repository: &str) -> Option<Uri> {
        let realm: Uri = self.realm.parse().ok()?;
        let begin = self.realm.split('#').next()?;
        let separator = if realm.query().is_some() { '&' } else { '?' };
        let pull = format!("repository:{repository}:pull");
        let scope = if self.scope.is_empty() { &pull } else { &self.scope };
        let service = match self.service.as_str() {
            "" => String::new(),
            service => format!("service={}&", encoded(service)),
        };
        let url = format!("{begin}{separator}{service}scope={}", encoded(scope));
        url.parse().ok().filter(|url: &Uri| url.authority().is_some())
    }
}

/// Takes `name=value` or `name="value"` and what follows behind its comma.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.trim_start_matches([' ', '\t', ',']).split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
        return Some((name.trim(), value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name.trim(), value, &quoted[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            character => value.push(character),
        }
    }
    None
}

/// Encodes a value for the query of an address.
fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            write!(text, "%{byte:02X}").ok();
        }
        text
    })
}

/// Reads the token that was given, as the value of a header that is never printed.
#[must_use]
pub fn token(answer: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let given = |token: &String| !token.is_empty();
    let token = answer.token.filter(given).or(answer.access_token.filter(given))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let full =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        let challenge = Challenge::parse(full).unwrap();
        assert_eq!(
            challenge.url("a/b").unwrap(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository:a/b:pull"
        );
        let short = Challenge::parse("bearer  realm=\"https://a.example/t?x=1\" , error=x").unwrap();
        assert_eq!(
            short.url("r").unwrap(),
            "https://a.example/t?x=1&scope=repository:r:pull"
        );
        let odd = Challenge::parse(r#"Bearer service="a \"b\" & c", realm=https://a.example/t"#).unwrap();
        assert_eq!(odd.service, r#"a "b" & c"#);
        assert_eq!(
            odd.url("r").unwrap(),
            "https://a.example/t?service=a%20%22b%22%20%26%20c&scope=repository:r:pull"
        );
        for other in [
            "",
            "Basic realm=\"x\"",
            "Bearer",
            "Bearer ",
            "Bearer realm=\"",
            "Bearer realm",
        ] {
            assert_eq!(Challenge::parse(other), None, "{other}");
        }
        assert_eq!(Challenge::parse("Bearer realm=/token").unwrap().url("r"), None);
    }

    #[test]
    fn a_token_has_either_name_and_is_never_printed() {
        let value = token(br#"{"token":"abc","access_token":"def"}"#).unwrap();
        assert_eq!(value, "Bearer abc");
        assert!(!format!("{value:?}").contains("abc"));
        assert_eq!(token(br#"{"token":"","access_token":"def"}"#).unwrap(), "Bearer def");
        for other in ["", "{}", "<html>", r#"{"token":1}"#, r#"{"token":"a\nb"}"#] {
            assert_eq!(token(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_challenge_is_read_or_refused(text in "(Bearer )?(realm=)?\"?.{0,60}", repository in "[a-z/]{0,20}") {
            std::hint::black_box(Challenge::parse(&text).and_then(|challenge| challenge.url(&repository)).map_or(0, |url| url.path().len()));
        }
    }
}
