//! Globs: patterns of repositories and tags.

use std::fmt;

use glob::{Pattern, PatternError};

/// Glob patterns with exclusions: a text matches when a pattern takes it and no pattern with a leading `!` does.
///
/// `*` takes any characters, `/` included, `?` one, `[a-z]` one of a set. Only exclusions take everything that they do
/// not exclude.
#[derive(Clone, Debug)]
pub struct Globs {
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

impl Globs {
    pub(super) fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut globs = Self {
            included: Vec::new(),
            excluded: Vec::new(),
        };
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(pattern) => globs.excluded.push(Pattern::new(pattern)?),
                None => globs.included.push(Pattern::new(pattern)?),
            }
        }
        if globs.included.is_empty() {
            globs.included.push(Pattern::new("*")?);
        }
        Ok(globs)
    }

    /// Returns true where the text is taken and not excluded.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let any = |globs: &[Pattern]| globs.iter().any(|glob| glob.matches(text));
        any(&self.included) && !any(&self.excluded)
    }

    /// Returns true where the text is taken because a pattern is this text, without a wildcard.
    #[must_use]
    pub fn names(&self, text: &str) -> bool {
        self.plain().any(|pattern| pattern == text) && self.matches(text)
    }

    /// Gives the patterns that are plain texts; an exclusion may exclude them.
    pub fn plain(&self) -> impl Iterator<Item = &str> {
        self.included
            .iter()
            .map(Pattern::as_str)
            .filter(|pattern| is_plain(pattern))
    }

    /// Returns the texts that are taken where every pattern is a plain text; `None` where one is a real glob, so that only
    /// a listing can tell what it takes.
    #[must_use]
    pub fn literals(&self) -> Option<Vec<&str>> {
        let literals: Vec<&str> = self.plain().collect();
        (literals.len() == self.included.len())
            .then(|| literals.into_iter().filter(|text| self.matches(text)).collect())
    }

    /// Ranks a text among those that are taken: as the patterns name them where all are plain texts, else by the alphabet.
    #[must_use]
    pub fn rank<'a>(&self, text: &'a str) -> (usize, &'a str) {
        let literals = self.literals().unwrap_or_default();
        let place = literals.iter().position(|literal| *literal == text);
        (place.unwrap_or(literals.len()), text)
    }
}

fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '['])
}

impl Default for Globs {
    fn default() -> Self {
        Self::new([]).expect("there is nothing to read")
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let included = self.included.iter().map(Pattern::to_string);
        let excluded = self.excluded.iter().map(|pattern| format!("!{pattern}"));
        f.write_str(&included.chain(excluded).collect::<Vec<_>>().join(" "))
    }
}
