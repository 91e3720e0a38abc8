//! Lines of unit files and of environment files.

use std::collections::BTreeMap;

/// Returns the lines of a unit file without comments; a backslash at the end joins a line with the next.
pub fn logical(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut joined = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (joined.is_empty() && trimmed.is_empty()) {
            continue;
        }
        if let Some(begin) = trimmed.strip_suffix('\\') {
            joined.push_str(begin);
            joined.push(' ');
        } else {
            joined.push_str(trimmed);
            lines.push(std::mem::take(&mut joined).trim().to_owned());
        }
    }
    if !joined.is_empty() {
        lines.push(joined.trim().to_owned());
    }
    lines
}

/// Splits a value into words as systemd does: quotes hold words together, and backslashes escape as in C.
pub fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = value.chars();
    while let Some(character) = rest.next() {
        match (quote, character) {
            (_, '\\') => word.get_or_insert_default().extend(escaped(&mut rest)),
            (Some(end), _) if character == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Reads what follows a backslash (systemd.syntax(7)); what it does not know stays as it is.
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let (digits, radix) = match rest.next()? {
        'a' => return Some('\u{7}'),
        'b' => return Some('\u{8}'),
        'f' => return Some('\u{c}'),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'v' => return Some('\u{b}'),
        's' => return Some(' '),
        'x' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        other => return Some(other),
    };
    let number: String = rest.by_ref().take(digits).collect();
    u32::from_str_radix(&number, radix).ok().and_then(char::from_u32)
}

/// Splits `name=value`, with `%%` for a percent sign; none where it is no assignment.
pub fn assignment(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    is_name(name).then(|| (name.to_owned(), value.replace("%%", "%")))
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reads a file that `EnvironmentFile=` names: assignments, a line each, as systemd.exec(5) has them.
#[must_use]
pub fn environment_file(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find('\n').unwrap_or(rest.len());
        let line = rest.get(..end).unwrap_or_default();
        let name = line
            .split_once('=')
            .map(|(name, _)| name.trim_end())
            .filter(|name| is_name(name));
        match name {
            Some(name) if !line.starts_with(['#', ';']) => {
                let at = line.find('=').map_or(end, |at| at + 1);
                let (value, after) = file_value(rest.get(at..).unwrap_or_default());
                found.insert(name.to_owned(), value);
                rest = after.trim_start();
            }
            _ => rest = rest.get(end..).unwrap_or_default().trim_start(),
        }
    }
    found
}

/// Reads a value up to the end of its line, which quotes and a backslash carry further; returns it and what follows.
fn file_value(text: &str) -> (String, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    let mut value = String::new();
    let mut kept = 0; // of the value, whatever blanks follow
    let mut quote = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match (quote, character) {
            (None, '\n') => break,
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None | Some('"'), '\\') => match rest.next() {
                Some('\n') | None => {}
                Some(next) if quote.is_none() || ['"', '\\', '`', '$'].contains(&next) => value.push(next),
                Some(next) => value.extend(['\\', next]),
            },
            _ => value.push(character),
        }
        if quote.is_some() || !character.is_whitespace() {
            kept = value.len();
        }
    }
    value.truncate(kept);
    (value, rest.as_str())
}

/// Puts values in the place of variables: `$NAME` as a whole word becomes the words of its value, `${NAME}` the value itself.
pub fn expand(word: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| environment.get(name).map_or("", String::as_str);
    match word.strip_prefix('$') {
        Some(name) if is_name(name) => return words(value(name)),
        _ => {}
    }
    let mut expanded = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("${") {
        expanded.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            rest = after;
            break;
        };
        expanded.push_str(value(name));
        rest = behind;
    }
    expanded.push_str(rest);
    vec![expanded.replace("$$", "$").replace("%%", "%")]
}
