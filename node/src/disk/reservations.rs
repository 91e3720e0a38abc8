//! Room that images take which are pulled beside each other, before they have taken it.

use std::collections::BTreeMap;

use super::{FileSystems, ImageNeed, Limits};

/// What comes of asking for room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is, and it is reserved.
    Fits,
    /// There would be without the images beside it: ask again once one of them has ended.
    Wait,
    /// There is too little, also without them.
    Refused(String),
}

/// The room that images hold which are being pulled, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations(BTreeMap<usize, ImageNeed>);

impl Reservations {
    /// Reserves room for an image, in the place of what it held, where the disk stays within its limits with all that hold some.
    pub fn try_reserve(
        &mut self,
        number: usize,
        limits: &Limits,
        disks: FileSystems,
        need: ImageNeed,
        pinned: u64,
    ) -> Room {
        let others = self.0.iter().filter(|(other, _)| **other != number);
        let all = others.fold(need, |sum, (_, other)| sum.and(*other));
        let Some(_) = limits.refusal(disks, all, pinned) else {
            self.0.insert(number, need);
            return Room::Fits;
        };
        match limits.refusal(disks, need, pinned) {
            Some(why) => Room::Refused(why),
            None => Room::Wait,
        }
    }

    /// Gives back what an image held, once it is pulled or is not to be.
    pub fn release(&mut self, number: usize) {
        self.0.remove(&number);
    }
}
