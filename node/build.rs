//! Leaves the tables for unwinding out of a release that ends at a fault, as nodes have it (functions/node-program/build.rs).

use std::env;

/// Names the variable by which cargo tells what a fault does to a release; it does not tell build scripts in any other way.
const PANIC: &str = "CARGO_PROFILE_RELEASE_PANIC";

fn main() {
    println!("cargo::rerun-if-changed=no-unwinding.ld");
    println!("cargo::rerun-if-env-changed={PANIC}");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    if let (true, true, Ok(folder)) = (
        is("PROFILE", "release"),
        is(PANIC, "abort"),
        env::var("CARGO_MANIFEST_DIR"),
    ) {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/no-unwinding.ld");
    }
}
