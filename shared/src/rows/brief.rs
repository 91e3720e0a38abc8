//! Describes what a node's row keeps of the images that it has no room to tell of.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest, Sha256};

use super::entry::{Entry, Presence};
use crate::image::Image;

/// Limits for how many images it is kept: with the hundred told in full they are a thousand. Each takes 27 bytes, a tenth of
/// what it takes in full, for a node's row is paid for by the KB with each report.
const MAX_MORE: usize = 900;
/// Limits how many bytes of a name's hash stand for it: that another of a thousand images has the same is one chance in 281
/// billion.
const KEY_BYTES: usize = 6;

/// A node's last word on an image, in brief: a letter and milliseconds since 1970, for the table keeps many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BriefEntry {
    milliseconds: i64,
    /// Tells whether the image is there.
    pub presence: Presence,
}

impl BriefEntry {
    /// Returns when it was said.
    #[must_use]
    pub fn at(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.milliseconds)
    }
}

impl From<&Entry> for BriefEntry {
    fn from(said: &Entry) -> Self {
        Self {
            milliseconds: said.at.timestamp_millis(),
            presence: said.presence(),
        }
    }
}

impl fmt::Display for BriefEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = Presence::LETTERS
            .iter()
            .find(|(presence, _)| *presence == self.presence);
        let (_, letter) = letter.expect("each has a letter");
        write!(f, "{letter}{}", self.milliseconds)
    }
}

impl FromStr for BriefEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (_, presence) = Presence::LETTERS.iter().find_map(|(presence, letter)| {
                let rest = text.strip_prefix(*letter)?;
                Some((rest, *presence))
            })?;
            let milliseconds = text.get(1..)?.parse().ok()?;
            Some(Self { milliseconds, presence })
        };
        read().ok_or_else(|| format!("{text:?} is no brief word on an image"))
    }
}

impl Serialize for BriefEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BriefEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The last words on images, by a hash of their names: on those that were spoken of last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BriefEntries(BTreeMap<String, BriefEntry>);

impl BriefEntries {
    /// Returns how many images they are of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the last word on an image.
    #[must_use]
    pub fn get(&self, image: &Image) -> Option<BriefEntry> {
        self.0.get(&key(image)).copied()
    }

    /// Lets go of the word on an image, which is told in full.
    pub fn remove(&mut self, image: &Image) {
        self.0.remove(&key(image));
    }

    /// Keeps the word on an image, and the latest of all there are.
    pub fn keep(&mut self, image: &Image, said: BriefEntry) {
        self.0.insert(key(image), said);
        if self.0.len() > MAX_MORE {
            let oldest = self.0.iter().min_by_key(|(key, said)| (**said, *key));
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.map(|key| self.0.remove(&key));
        }
    }
}

fn key(image: &Image) -> String {
    let hash = Sha256::digest(image.to_string());
    let number = hash[..KEY_BYTES]
        .iter()
        .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("{number:0width$x}", width = 2 * KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written_and_no_other_text_is() {
        for (presence, text) in [
            (Presence::Missing, r#""m1763258084049""#),
            (Presence::NotApplicable, r#""n1763258084049""#),
            (Presence::Warm, r#""w1763258084049""#),
        ] {
            let word = BriefEntry {
                milliseconds: 1_763_258_084_049,
                presence,
            };
            assert_eq!(serde_json::to_string(&word).unwrap(), text);
            assert_eq!(serde_json::from_str::<BriefEntry>(text).unwrap(), word);
        }
        for text in [r#""""#, r#""w""#, r#""x1""#, r#""ä1""#, "1"] {
            assert!(serde_json::from_str::<BriefEntry>(text).is_err(), "{text}");
        }
    }
}
