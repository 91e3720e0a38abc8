//! Which images of ours stay, which are pinned, and which are let go: a decision, and what carries it out.
