//! One command at a time on a node, and one that waits.
