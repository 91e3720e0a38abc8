//! The rows of a rule, as reports make them, and what the code that ships decides by them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::NaiveDate;
use prefetch::{
    image::Image,
    rows::{UsageDay, UsageRow},
    rule::Rule,
    rule_images::{MAX_NEIGHBOURS, RuleUse, neighbours_first},
    usage::day,
};

use crate::world::{ImageId, REGISTRY, World};

/// The first second of the year, a Monday's: 2026-01-05T00:00:00Z.
const BEGIN: u64 = 1_767_571_200;

pub fn time(at: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN + u64::from(at))
}

pub struct Rows {
    pub rule: Rule,
    /// Tells for how many days an image counts that was seen.
    within: u32,
    known: Arc<Vec<UsageRow>>,
    places: HashMap<ImageId, usize>,
    by_name: BTreeMap<String, usize>,
    /// The repositories that the rule takes, by their places; all while that is not known, or not asked.
    taken: Vec<usize>,
    /// Those that it took when [`Rows::added`] was asked last.
    before: Vec<usize>,
}

impl Rows {
    pub fn new(rule: Rule, within: u32, world: &World) -> Self {
        let names = world.repositories.iter().enumerate();
        let own = names.filter(|(_, repository)| repository.registry == REGISTRY);
        let mut rows = Self {
            rule,
            within,
            known: Arc::default(),
            places: HashMap::new(),
            by_name: own
                .map(|(place, repository)| (repository.name.clone(), place))
                .collect(),
            taken: Vec::new(),
            before: Vec::new(),
        };
        rows.take_repositories();
        rows
    }

    /// Returns true where nodes are asked what they run.
    pub fn asks(&self) -> bool {
        self.rule.used || self.rule.neighbours
    }

    /// Tells what is known, as the product reads it: nothing where the rule does not ask.
    fn known_use(&self) -> RuleUse {
        if !self.asks() {
            return RuleUse::default();
        }
        RuleUse::new(Arc::clone(&self.known), time(0))
    }

    /// Returns the repositories that the rule takes, in its order.
    pub fn repositories(&self) -> &[usize] {
        &self.taken
    }

    /// Gives the repositories that the rule takes since this was asked last.
    pub fn added(&mut self) -> Vec<usize> {
        let before = std::mem::replace(&mut self.before, self.taken.clone());
        let taken = self.taken.iter().copied();
        taken.filter(|repository| !before.contains(repository)).collect()
    }

    pub fn reconciles(&self) -> bool {
        !self.rule.used || self.known_use().is_known()
    }

    /// Names the images of a new node, given the newest of each repository.
    pub fn of_new_node(&self, world: &World, newest: &[Option<ImageId>], at: u32) -> Vec<Image> {
        let newest = self.taken.iter().filter_map(|repository| newest[*repository]);
        let newest = newest.map(|image| world.image(image).clone()).collect();
        let known = self.known_use();
        let mut neighbours = known.neighbours(&self.rule, REGISTRY, time(at));
        neighbours.truncate(MAX_NEIGHBOURS);
        neighbours_first(&neighbours, newest)
    }

    /// Takes in what reports told at once: which nodes ran which image on which day.
    pub fn fold(&mut self, world: &World, told: BTreeMap<(ImageId, NaiveDate), UsageDay>) {
        let mut is_new = false;
        let known = Arc::get_mut(&mut self.known).expect("nobody reads them now");
        for ((image, day), nodes) in told {
            let mut row = UsageRow::new(world.image(image).clone(), day, world.bytes(image));
            row.days.insert(day, nodes);
            if let Some(place) = self.places.get(&image) {
                known[*place].merge(&row);
            } else {
                let repository = row.image.repository();
                is_new |= known.iter().all(|known| known.image.repository() != repository);
                self.places.insert(image, known.len());
                known.push(row);
            }
        }
        if is_new {
            self.take_repositories();
        }
    }

    /// Has the rows expire that count no more.
    pub fn expire(&mut self, at: u32) {
        let (within, today) = (self.within, day(time(at)));
        let known = Arc::get_mut(&mut self.known).expect("nobody reads them now");
        known.retain(|row| row.is_within(within, today));
        let ids = known.iter().map(|row| World::id_of(&row.image));
        self.places = ids.zip(0..).collect();
        self.take_repositories();
    }

    /// Asks which repositories the rule takes: it depends on nothing but of which of them there are rows.
    fn take_repositories(&mut self) {
        let names = self.known_use().repositories(&self.rule, REGISTRY).unwrap_or_else(|| {
            let all = self.by_name.keys().filter(|name| self.rule.repositories.matches(name));
            all.cloned().collect()
        });
        let places = names.iter().filter_map(|name| self.by_name.get(name).copied());
        self.taken = places.collect();
    }
}
