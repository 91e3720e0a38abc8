//! The refusal of one of a registry's hosts, and which of several refusals counts.

use prefetch::outcome::NodeReason;

use crate::failure::Failure;

/// Ranks answers by how much they tell: of several hosts' the highest counts (containerd, `dockerResolver.Resolve`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A mirror has no such image: the registry itself may have it.
    NotInMirror,
    /// It is none of a registry, or none at all.
    Unusable,
    /// It has no such image.
    NotThere,
    /// It does not give the image.
    Refused,
}

/// A failure of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its rank among the answers of several hosts.
    pub rank: Rank,
    /// True where the host was silent for the whole time that it had.
    pub is_silent: bool,
    /// The failure.
    pub failure: Failure,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(rank: Rank, reason: NodeReason, detail: String) -> Self {
        Self {
            rank,
            is_silent: false,
            failure: Failure::new(reason, detail),
        }
    }

    /// Makes that of a host that answers, but not as a registry does.
    pub fn unusable(host: &str, what: &str) -> Self {
        Self::new(Rank::Unusable, NodeReason::Registry, format!("{host} {what}"))
    }

    /// Makes that of a host that cannot be spoken to.
    pub fn unreachable(host: &str, cause: &str) -> Self {
        Self::new(
            Rank::Unusable,
            NodeReason::Registry,
            format!("{host} cannot be asked: {cause}"),
        )
    }

    /// Makes that of a host that says nothing in time.
    pub fn silent(host: &str) -> Self {
        Self {
            is_silent: true,
            ..Self::new(
                Rank::Unusable,
                NodeReason::Timeout,
                format!("{host} does not answer in time"),
            )
        }
    }

    /// Takes it for what a mirror says, where the registry itself is asked as well.
    pub fn of_mirror(mut self) -> Self {
        if self.rank == Rank::NotThere {
            self.rank = Rank::NotInMirror;
        }
        self
    }

    /// Takes the one of two that tells more; of equals the later, which is the registry's own after its mirrors'.
    pub fn or_later(self, later: Self) -> Self {
        if later.rank >= self.rank { later } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_more_counts_and_of_equals_the_registrys_own() {
        let [silent, not_there, refused] = [
            Refusal::silent("mirror"),
            Refusal::new(Rank::NotThere, NodeReason::NotFound, String::new()),
            Refusal::new(Rank::Refused, NodeReason::Denied, String::new()),
        ];
        assert_eq!(silent.clone().or_later(not_there.clone()), not_there);
        assert_eq!(refused.clone().or_later(not_there.clone()), refused);
        assert_eq!(not_there.clone().of_mirror().or_later(silent.clone()), silent);
        assert_eq!(silent.clone().or_later(not_there.of_mirror()), silent);
        assert_eq!(Refusal::unusable("page", "x").or_later(silent.clone()), silent);
    }
}
