//! A node's inventory: which images it has, as far as it has told, in whatever order commands end there.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    brief::{BriefEntries, BriefEntry},
    entry::{Entry, Presence},
    outcome::Outcome,
};
use crate::{image::Image, outcome::Status};

/// Limits for how many images a node's row tells in full: with the longest names they take a fifth of the 400 KB that
/// DynamoDB gives a row.
const MAX_IMAGES: usize = 100;

/// Tells which images a node has, over all jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Tells how often the row was written.
    pub version: u32,
    /// Keeps the last word on each image, of the hundred that the node spoke of last.
    pub images: BTreeMap<Image, Entry>,
    /// Keeps the last word on the nine hundred images that it spoke of before, in brief.
    #[serde(default, skip_serializing_if = "BriefEntries::is_empty")]
    pub more: BriefEntries,
    /// The last failure, be it the node's word or made up in its silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
}

/// A failure, ordered by its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// Tells when the command ended.
    pub at: DateTime<Utc>,
    /// The image that could not be brought.
    pub image: Image,
    /// Says why.
    pub reason: String,
    /// The job.
    pub job: String,
}

impl Inventory {
    /// Takes in what became of an image in a job's command that ended at that time.
    ///
    /// What was made up in the node's silence says nothing of what it holds: an image that was there still is.
    pub fn fold(&mut self, image: &Image, outcome: &Outcome, at: DateTime<Utc>, job: &str) {
        let (reason, job) = (outcome.reason.clone(), job.to_owned());
        if outcome.status == Status::Failed {
            let failure = Failure {
                at,
                image: image.clone(),
                reason: reason.clone(),
                job: job.clone(),
            };
            self.last_failure = self.last_failure.take().max(Some(failure));
        }
        if outcome.reported {
            let said = Entry {
                status: outcome.status,
                reason,
                at,
                since: outcome.status.is_warm().then_some(at),
                job,
            };
            self.take(image, said);
        }
    }

    /// Tells whether an image is there, by the node's last word on it; none where it has said nothing, or nothing lately.
    #[must_use]
    pub fn presence(&self, image: &Image) -> Option<Presence> {
        let in_full = self.images.get(image).map(Entry::presence);
        in_full.or_else(|| Some(self.more.get(image)?.presence))
    }

    /// Takes in a word on an image that is told in full, or becomes so; one that is older than what is known in brief is none.
    fn take(&mut self, image: &Image, said: Entry) {
        if let Some(known) = self.images.get_mut(image) {
            known.fold(said);
        } else if self.more.get(image).is_none_or(|known| known < BriefEntry::from(&said)) {
            self.more.remove(image);
            self.images.insert(image.clone(), said);
            self.shorten_oldest();
        }
    }

    fn shorten_oldest(&mut self) {
        let oldest = self.images.iter().min_by_key(|(image, said)| (said.at, *image));
        let oldest = oldest.map(|(image, _)| image.clone());
        if let Some(image) = oldest.filter(|_| self.images.len() > MAX_IMAGES)
            && let Some(said) = self.images.remove(&image)
        {
            self.more.keep(&image, BriefEntry::from(&said));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Word = (usize, Outcome, i64, &'static str);

    #[test]
    fn what_was_made_up_in_a_nodes_silence_is_a_failure_and_says_nothing_of_what_it_holds() {
        let silence = (1, outcome(Status::Failed, "delivery-timed-out", false), 2, "b");
        let inventory = folded(&[(1, outcome(Status::Pulled, "", true), 1, "a"), silence]);
        let entry = &inventory.images[&image(1)];
        assert_eq!(
            (entry.status, entry.since, entry.job.as_str()),
            (Status::Pulled, Some(at(1)), "a")
        );
        let failure = inventory.last_failure.unwrap();
        assert_eq!(
            (failure.at, failure.reason.as_str(), failure.job.as_str()),
            (at(2), "delivery-timed-out", "b")
        );
    }

    #[test]
    fn an_image_is_warm_since_the_first_word_that_it_is_there_after_the_last_that_it_is_not() {
        let word = |status, time| (1, outcome(status, "", true), time, "a");
        let mut words = vec![
            word(Status::Pulled, 1),
            word(Status::Skipped, 2),
            word(Status::Pulled, 3),
            word(Status::Cached, 4),
        ];
        let since = |words: &[Word]| folded(words).images[&image(1)].since;
        assert_eq!(since(&words), Some(at(3)));
        assert_eq!(since(&words[..2]), None);
        // The word that it is not there comes last: nobody knows any more that it was said to be there at 3.
        words.swap(1, 3);
        assert_eq!(since(&words), Some(at(4)));
    }

    #[test]
    fn a_row_of_an_older_or_newer_version_is_read() {
        let row = r#"{"pk": "node#i-0", "sk": "node", "version": 3, "images": {}, "expires_at": 5, "color": "blue"}"#;
        let inventory: Inventory = serde_json::from_str(row).unwrap();
        assert_eq!(
            (inventory.version, inventory.images.len(), inventory.last_failure),
            (3, 0, None)
        );
    }

    proptest! {
        #[test]
        fn the_latest_word_of_each_image_counts_in_any_order_and_repetition(
            (words, shuffled) in prop::collection::vec(word(), 1..12).prop_flat_map(|words| {
                let twice = [words.clone(), words.clone()].concat();
                (Just(words), Just(twice).prop_shuffle())
            }),
        ) {
            let (inventory, otherwise) = (folded(&words), folded(&shuffled));
            let latest = |inventory: &Inventory| -> Vec<_> {
                let said = inventory.images.iter();
                said.map(|(image, said)| (image.clone(), said.status, said.reason.clone(), said.at, said.job.clone())).collect()
            };
            prop_assert_eq!(latest(&inventory), latest(&otherwise));
            prop_assert_eq!(&inventory.last_failure, &otherwise.last_failure);
            for (image_k, outcome, time, _) in &words {
                if outcome.reported {
                    prop_assert!(inventory.images[&image(*image_k)].at >= at(*time));
                } else if outcome.status == Status::Failed {
                    prop_assert!(inventory.last_failure.as_ref().unwrap().at >= at(*time));
                }
            }
        }

        #[test]
        fn since_is_exact_where_words_come_in_order_and_never_too_early(
            (mut words, shuffled) in prop::collection::vec(word(), 1..12)
                .prop_flat_map(|words| (Just(words.clone()), Just(words).prop_shuffle())),
        ) {
            words.sort_by_key(|(_, outcome, time, _)| (*time, outcome.status));
            let (inventory, otherwise) = (folded(&words), folded(&shuffled));
            for (image, entry) in &inventory.images {
                let said: Vec<_> = words.iter().filter(|(k, outcome, ..)| self::image(*k) == *image && outcome.reported).collect();
                let interrupted = said.iter().rposition(|(_, outcome, ..)| !outcome.status.is_warm());
                let first = said.get(interrupted.map_or(0, |place| place + 1)).map(|(_, _, time, _)| at(*time));
                prop_assert_eq!(entry.since, first);
                prop_assert!(otherwise.images[image].since >= first);
                prop_assert_eq!(otherwise.images[image].since.is_some(), first.is_some());
            }
        }

    }

    proptest! {
        // Each case folds hundreds of words.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn of_more_images_than_a_row_takes_those_are_told_in_full_that_were_spoken_of_last_and_the_others_in_brief(
            order in Just((0..300).collect::<Vec<usize>>()).prop_shuffle(),
        ) {
            // Of each image two words, the later of which says in turns that it is there, is not, or never will be.
            let word = |n: usize| {
                let (k, is_later) = (n / 2, n % 2 == 1);
                let (status, reason) = match k % 3 {
                    0 => (Status::Cached, ""),
                    1 => (Status::Failed, "denied"),
                    _ => (Status::Skipped, "platform"),
                };
                let said = if is_later { outcome(status, reason, true) } else { outcome(Status::Pulled, "", true) };
                (k, said, (2 * k + usize::from(is_later)).cast_signed() as i64, "a")
            };
            let words: Vec<Word> = order.iter().map(|n| word(*n)).collect();
            let inventory = folded(&words);
            prop_assert_eq!(inventory.images.keys().cloned().collect::<Vec<_>>(), (50..150).map(image).collect::<Vec<_>>());
            prop_assert_eq!(inventory.more.len(), 50);
            for k in 0..150 {
                let expected = [Presence::Warm, Presence::Missing, Presence::NotApplicable][k % 3];
                prop_assert_eq!(inventory.presence(&image(k)), Some(expected));
            }
            prop_assert_eq!(inventory.more.get(&image(3)).unwrap().at(), Some(at(7)));
            // A word that is known changes nothing, however it is kept.
            let mut again = inventory.clone();
            for (k, said, time, job) in &words {
                again.fold(&image(*k), said, at(*time), job);
            }
            prop_assert_eq!(&again.more, &inventory.more);
            prop_assert_eq!(again.images.len(), 100);
            // One that was told in brief is told in full again once the node speaks of it.
            again.fold(&image(0), &outcome(Status::Cached, "", true), at(400), "b");
            prop_assert!(again.images.contains_key(&image(0)) && again.more.get(&image(0)).is_none());
            prop_assert_eq!((again.images.len(), again.more.len()), (100, 50));
        }
    }

    fn word() -> impl Strategy<Value = Word> {
        let status = prop::sample::select(vec![Status::Failed, Status::Skipped, Status::Cached, Status::Pulled]);
        let reason = prop::sample::select(vec!["", "denied"]);
        let job = prop::sample::select(vec!["a", "b"]);
        (1..=2_usize, status, reason, any::<bool>(), 0..6_i64, job)
            .prop_map(|(k, status, reason, reported, time, job)| (k, outcome(status, reason, reported), time, job))
    }

    fn folded(words: &[Word]) -> Inventory {
        let mut inventory = Inventory::default();
        for (k, outcome, time, job) in words {
            inventory.fold(&image(*k), outcome, at(*time), job);
        }
        inventory
    }

    fn outcome(status: Status, reason: &str, reported: bool) -> Outcome {
        Outcome {
            status,
            reason: reason.to_owned(),
            seconds: 0.0,
            bytes: 0,
            attempts: 1,
            attempt: 1,
            reported,
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_secs(seconds).unwrap()
    }

    #[test]
    fn of_a_thousand_images_it_is_known_whether_they_are_there_in_whatever_order_they_were_told() {
        let words: Vec<Word> = (0..1100_usize)
            .map(|k| (k, outcome(Status::Cached, "", true), k.cast_signed() as i64, "a"))
            .collect();
        let inventory = folded(&words);
        let backwards: Vec<Word> = words.iter().rev().cloned().collect();
        assert_eq!(folded(&backwards), inventory);
        assert_eq!((inventory.images.len(), inventory.more.len()), (100, 900));
        assert_eq!(inventory.presence(&image(99)), None);
        assert!((100..1100).all(|k| inventory.presence(&image(k)) == Some(Presence::Warm)));
        let row: Inventory = serde_json::from_str(&serde_json::to_string(&inventory).unwrap()).unwrap();
        assert_eq!(row, inventory);
    }

    fn image(k: usize) -> Image {
        let text = format!("123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v{k:03}@sha256:{k:064x}");
        text.parse().unwrap()
    }
}
