//! Shell patterns as Go's `filepath.Match` reads them, for names without a slash.

/// Returns true where a pattern stands for a whole name: `*`, `?`, `[a-z]`, `[^a-z]`, and a backslash before what is meant as
/// it is. A pattern that is malformed matches nothing.
///
/// It goes back to the last `*` alone, so that its steps are at most the product of both lengths.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut done) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&'*') {
            star = Some((at + 1, done));
            at += 1;
            continue;
        }
        let step = pattern.get(at).map(|_| one(&pattern, at, name.get(done).copied()));
        match (step, name.get(done)) {
            (None, None) => return true,
            (Some(Step::Matches(next)), _) => (at, done) = (next, done + 1),
            (Some(Step::Malformed), _) => return false,
            (None | Some(Step::Differs), _) => match star {
                Some((after, tried)) if tried < name.len() => {
                    star = Some((after, tried + 1));
                    (at, done) = (after, tried + 1);
                }
                _ => return false,
            },
        }
    }
}

enum Step {
    Matches(usize),
    Differs,
    Malformed,
}

/// Matches one character with the pattern's part that begins at an index.
fn one(pattern: &[char], at: usize, character: Option<char>) -> Step {
    let (end, is_match) = match pattern.get(at) {
        Some('?') => (at + 1, character.is_some()),
        Some('[') => match class(pattern, at + 1, character) {
            Some(found) => found,
            None => return Step::Malformed,
        },
        Some('\\') => match pattern.get(at + 1) {
            Some(&meant) => (at + 2, character == Some(meant)),
            None => return Step::Malformed,
        },
        Some(&meant) => (at + 1, character == Some(meant)),
        None => return Step::Differs,
    };
    if is_match { Step::Matches(end) } else { Step::Differs }
}

/// Reads a class behind its bracket: where it ends, and whether the character is in it; none where it does not end.
fn class(pattern: &[char], begin: usize, character: Option<char>) -> Option<(usize, bool)> {
    let is_negated = pattern.get(begin) == Some(&'^');
    let mut at = begin + usize::from(is_negated);
    let first = at;
    let mut is_in = false;
    loop {
        if at > first && *pattern.get(at)? == ']' {
            return Some((at + 1, character.is_some() && is_in != is_negated));
        }
        let (low, next) = bound(pattern, at)?;
        let (high, next) = match pattern.get(next) {
            Some('-') => bound(pattern, next + 1)?,
            _ => (low, next),
        };
        is_in |= character.is_some_and(|character| (low..=high).contains(&character));
        at = next;
    }
}

fn bound(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match *pattern.get(at)? {
        '-' | ']' => None,
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        character => Some((character, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    #[test]
    fn patterns_mean_what_go_says() {
        for (pattern, name, is_match) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*b*c*d*e*", "axbxcxdxe", true),
            ("a*b*c", "axbx", false),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("ab[^c]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("[\\]a]", "]", true),
            ("[]a]", "]", false),
            ("[a-]", "a", false),
            ("[a", "a", false),
            ("a\\", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_a_star(name in "[a-z0-9.-]{0,20}", pattern in "[\\PC*?\\[\\]^\\\\-]{0,20}") {
            prop_assert!(matches(&name, &name));
            prop_assert!(matches("*", &name));
            let longer = matches(&format!("*{pattern}"), &format!("{name}{name}"));
            prop_assert!(!matches(&pattern, &name) || longer);
        }

        #[test]
        fn many_stars_take_no_time(stars in 1_usize..200) {
            let name = "c".repeat(4000);
            prop_assert!(!matches(&"c*".repeat(stars).replace("c*c", "c*d"), &name) || stars == 1);
        }
    }
}
