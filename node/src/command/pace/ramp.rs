//! The number of connections: more as long as more of them bring more.

/// Bounds the rate, in bytes per second, up to which a connection limits a download: a gigabit. One connection to ECR "often
/// sustains only a few hundred Mbps" (data-on-eks).
const UNLIMITED: u64 = 125_000_000;
/// Multiplies the connections for the next step.
const FACTOR: usize = 3;

/// The connections so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// The number of connections in use.
    pub connections: usize,
    /// The most that may be used.
    max: usize,
    /// The number that containerd would use for the image: one for each layer, within its own limit.
    containerds: usize,
    /// The best rate so far, and with how many connections that was.
    best: (u64, usize),
}

/// Tells what follows from a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More connections are tried.
    More,
    /// It stays at the connections that there are now.
    Enough,
    /// It stays at them, and they bring no more than containerd's own would.
    NoHelp,
}

impl Ramp {
    /// Begins with one connection.
    #[must_use]
    pub const fn new(max: usize, containerds: usize) -> Self {
        Self {
            connections: 1,
            max,
            containerds,
            best: (0, 1),
        }
    }

    /// Takes into account what the connections bring, in bytes per second.
    pub fn step(&mut self, rate: u64) -> Step {
        let (best, connections) = self.best;
        let is_more = rate > best + best / 4;
        if self.connections == 1 && rate >= UNLIMITED {
            self.connections = self.containerds.min(self.max);
            return Step::NoHelp;
        }
        if is_more {
            self.best = (rate, self.connections);
        } else {
            self.connections = connections;
        }
        if is_more && self.connections < self.max {
            self.connections = (self.connections * FACTOR).min(self.max);
            return Step::More;
        }
        if self.connections <= self.containerds {
            Step::NoHelp
        } else {
            Step::Enough
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns where it ends where each connection brings so much, and all together no more than a limit.
    fn end(max: usize, containerds: usize, each: u64, limit: u64) -> (usize, Step) {
        let mut ramp = Ramp::new(max, containerds);
        loop {
            let rate = (each * ramp.connections as u64).min(limit);
            match ramp.step(rate) {
                Step::More => {}
                step => return (ramp.connections, step),
            }
        }
    }

    #[test]
    fn slow_connections_are_many_and_fast_ones_are_containerds_own() {
        const MB: u64 = 1_000_000;
        assert_eq!(end(20, 3, 20 * MB, u64::MAX), (20, Step::Enough));
        assert_eq!(end(20, 3, 40 * MB, 300 * MB), (9, Step::Enough));
        assert_eq!(
            end(20, 3, 40 * MB, 120 * MB),
            (3, Step::NoHelp),
            "the node's network is the limit"
        );
        assert_eq!(
            end(20, 1, 40 * MB, 120 * MB),
            (3, Step::Enough),
            "one layer, for which containerd has one"
        );
        assert_eq!(end(20, 3, 200 * MB, 300 * MB), (3, Step::NoHelp));
        assert_eq!(end(3, 3, 20 * MB, u64::MAX), (3, Step::NoHelp));
    }

    proptest! {
        #[test]
        fn it_ends_within_its_limit(max in 1..=20_usize, containerds in 1..=3_usize, rates in prop::collection::vec(any::<u32>(), 8)) {
            let mut ramp = Ramp::new(max, containerds);
            let steps = rates.iter().take_while(|rate| ramp.step(u64::from(**rate)) == Step::More).count();
            prop_assert!(steps <= 3 && (1..=max).contains(&ramp.connections));
        }
    }
}
