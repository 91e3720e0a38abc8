//! The use that a rule's nodes make of images, as far as it is known, and what follows from it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use chrono::{Days, NaiveDate};

use crate::{
    command::MAX_IMAGES,
    image::{Image, ecr_account},
    rows::{NodeSet, UsageRow},
    rule::Rule,
    usage::day,
};

/// Limits how many images a new node gets because its neighbours run them: those of three commands.
pub const MAX_NEIGHBOURS: usize = 3 * MAX_IMAGES;

/// Holds what a rule's nodes run, or lately ran; nothing where that is not known.
#[derive(Clone, Debug, Default)]
pub struct RuleUse {
    rows: Arc<Vec<UsageRow>>,
    is_known: bool,
}

impl RuleUse {
    /// Takes the rows of a rule.
    #[must_use]
    pub fn new(rows: Arc<Vec<UsageRow>>, now: SystemTime) -> Self {
        let is_known = rows.iter().any(|row| row.is_told_by_nodes(now.into()));
        Self { rows, is_known }
    }

    /// Returns true where nodes have told what they run: what a job brought says nothing of that, nor does the first node at
    /// once, for others may run something else.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Names the repositories of this registry that a rule takes because its nodes use them, in the rule's order; none where it
    /// takes others too, or nothing is known.
    #[must_use]
    pub fn repositories(&self, rule: &Rule, registry: &str) -> Option<Vec<String>> {
        if !rule.used || !self.is_known() {
            return None;
        }
        Some(taken(rule, self.in_registry(registry)))
    }

    /// Names the repositories of a registry that the rule's nodes use.
    pub(super) fn in_registry(&self, registry: &str) -> impl Iterator<Item = &str> {
        let images = self.rows.iter().map(|row| &row.image);
        images
            .filter(move |image| image.registry() == registry)
            .map(Image::repository)
    }

    /// Returns the size in bytes that nodes tell of an image, by whatever tag they run it.
    #[must_use]
    pub fn bytes(&self, image: &Image) -> Option<u64> {
        let is_it = |known: &Image| known.digest() == image.digest();
        let row = self.rows.iter().find(|row| is_it(&row.image));
        row.map(|row| row.bytes)
    }

    /// Gives what runs on a rule's nodes now and may be brought to a new one, that of most nodes first, then by name: what this
    /// account's registries have, and those that the rule names.
    ///
    /// Now is today, and yesterday for repositories of which nothing was seen to run yet today: for all of them until more than
    /// half as many nodes have told today as did yesterday, for the first after midnight say nothing of the others.
    #[must_use]
    pub fn neighbours(&self, rule: &Rule, registry: &str, now: SystemTime) -> Vec<&UsageRow> {
        if !rule.neighbours {
            return Vec::new();
        }
        // Rows are many, and registries few.
        let mut of_host: BTreeMap<&str, bool> = BTreeMap::new();
        let mut is_brought = |host| *of_host.entry(host).or_insert_with(|| brings_from(rule, registry, host));
        let today = day(now);
        let renewed = self.renewed(today);
        let rows = self.rows.iter().filter(|row| is_brought(row.image.registry()));
        let mut running: Vec<(u64, &UsageRow)> = rows.map(|row| (row.running_nodes(today), row)).collect();
        running.retain(|(nodes, row)| *nodes > 0 && (runs_on(row, today) || !renewed.contains(&repository(row))));
        running.sort_by_key(|(nodes, row)| (Reverse(*nodes), &row.image));
        running.into_iter().map(|(_, row)| row).collect()
    }

    /// Names the repositories of which images were seen to run today; none until more than half as many nodes have told today as
    /// did yesterday.
    fn renewed(&self, today: NaiveDate) -> BTreeSet<(&str, &str)> {
        let nodes_of = |day| {
            let mut nodes = NodeSet::default();
            let rows = self.rows.iter().filter_map(|row| running_on(row, day));
            rows.for_each(|running| nodes.merge(running));
            nodes.count()
        };
        if nodes_of(today) * 2 <= nodes_of(today - Days::new(1)) {
            return BTreeSet::new();
        }
        let renewed = self.rows.iter().filter(|row| runs_on(row, today));
        renewed.map(repository).collect()
    }
}

fn runs_on(row: &UsageRow, day: NaiveDate) -> bool {
    running_on(row, day).is_some_and(|nodes| !nodes.is_empty())
}

fn running_on(row: &UsageRow, day: NaiveDate) -> Option<&NodeSet> {
    row.days.get(&day).map(|seen| &seen.running)
}

/// Returns true where a rule brings from a registry: any of the account of this stack's own, and those that it names.
#[must_use]
pub fn brings_from(rule: &Rule, own: &str, host: &str) -> bool {
    let account = ecr_account(own);
    account.is_some() && ecr_account(host) == account || rule.registries.matches(host)
}

/// Gives those of the repositories that a rule takes, each once, in the rule's order.
pub(super) fn taken<'a>(rule: &Rule, repositories: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = repositories.filter(|name| rule.repositories.matches(name)).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_cached_key(|name| rule.repositories.rank(name));
    names.into_iter().map(str::to_owned).collect()
}

fn repository(row: &UsageRow) -> (&str, &str) {
    (row.image.registry(), row.image.repository())
}

/// Puts what neighbours run before a rule's newest images, each image once.
#[must_use]
pub fn neighbours_first(neighbours: &[&UsageRow], newest: Vec<Image>) -> Vec<Image> {
    let mut images: Vec<Image> = neighbours.iter().map(|row| row.image.clone()).collect();
    let running = images.len();
    for image in newest {
        if !images[..running].contains(&image) {
            images.push(image);
        }
    }
    images
}

#[cfg(test)]
mod tests;
