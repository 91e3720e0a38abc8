//! The program that the Command document runs on a node.

fn main() {}
