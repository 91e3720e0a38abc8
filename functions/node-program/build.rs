//! Builds the nodes' program for both processors, so that `sam build` alone builds all that is deployed.
//!
//! A release has both, or fails; where `NODE_PROGRAM` is `incomplete`, one that lacks its processor's standard library is left
//! out, which is said. Any other build has none, for lints and unit tests need none, unless `NODE_PROGRAM` is `quick`: then it
//! has one for this machine, not optimised, as the local cloud's nodes take it.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the oldest C library that the program runs with: Amazon Linux 2 has 2.26.
const GLIBC: &str = "2.26";
/// Lists what the program is made of, for both processors and by both compilers.
const SOURCES: [&str; 10] = [
    ".cargo",
    ".tools/rust-arm64/rustc",
    "Cargo.lock",
    "Cargo.toml",
    "node/Cargo.toml",
    "node/build.rs",
    "node/no-unwinding.ld",
    "node/src",
    "shared/Cargo.toml",
    "shared/src",
];
/// Lists what the program's build takes from its environment, so that two builds of one commit are the same bytes.
const PASSED_ON: [&str; 12] = [
    "CARGO_HOME",
    "HOME",
    "PATH",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_UPDATE_ROOT",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "https_proxy",
    "HTTPS_PROXY",
];
/// Lists how the names of further variables begin that it takes: those that say from where cargo fetches crates.
const PASSED_ON_BY_PREFIX: [&str; 4] = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_"];

/// Says what helps where there is no standard library of a processor.
const LACKING: &str = ", for its standard library is not here and rustup could not fetch it (make tools installs a compiler \
                       that has it; with NODE_PROGRAM=incomplete it is left out, and its nodes are not prefetched to)";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NODE_PROGRAM");
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?)
        .join("../..")
        .canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let release = env::var("PROFILE")? == "release";
    let wanted = env::var("NODE_PROGRAM").unwrap_or_default();
    let quick = wanted == "quick";
    if release || quick {
        for source in SOURCES {
            println!("cargo::rerun-if-changed={}", root.join(source).display());
        }
    }
    for processor in Processor::ALL {
        let file = out.join(processor.name);
        if release || quick && processor.is_this_machines() {
            processor.build(&root, release, wanted == "incomplete", &file)?;
        } else {
            fs::write(&file, "")?;
        }
    }
    Ok(())
}

/// A processor that nodes have.
#[derive(Clone, Copy)]
struct Processor {
    name: &'static str,
    target: &'static str,
    /// A compiler that has the standard library, for machines on which rustup cannot fetch that (local/install-node-tools).
    other_compiler: Option<&'static str>,
}

impl Processor {
    const ALL: [Self; 2] = [
        Self {
            name: "x86_64",
            target: "x86_64-unknown-linux-gnu",
            other_compiler: None,
        },
        Self {
            name: "arm64",
            target: "aarch64-unknown-linux-gnu",
            other_compiler: Some(".tools/rust-arm64/rustc"),
        },
    ];

    fn is_this_machines(self) -> bool {
        self.target.starts_with(env::consts::ARCH)
    }

    /// Puts the program into a file; an empty one where this machine has no standard library for it and it may be lacking.
    fn build(self, root: &Path, release: bool, may_lack: bool, file: &Path) -> Result<()> {
        let folder = root.join("target/node-program").join(self.name);
        let mut cargo = self.cargo(root)?;
        cargo
            .env("CARGO_TARGET_DIR", &folder)
            .arg("--lambda-dir")
            .arg(folder.join("lambda"));
        if release {
            cargo.arg("--release");
        }
        let built = cargo.output()?;
        if built.status.success() {
            fs::copy(folder.join("lambda/prefetch-images/bootstrap"), file)?;
            return Ok(());
        }
        let lacks = !self.has_standard_library()? && !self.is_this_machines();
        if !(lacks && may_lack) {
            let said = String::from_utf8_lossy(&built.stderr);
            let why = if lacks { LACKING } else { "" };
            return Err(format!("no program for {} could be built{why}:\n{said}", self.target).into());
        }
        println!(
            "cargo::warning=there is no program for nodes with {} processors, which will not be prefetched to: no standard \
             library of {} is here, and rustup could not fetch it",
            self.name, self.target
        );
        Ok(fs::write(file, "")?)
    }

    /// Makes the call of cargo, which has nothing of what cargo has set for the build of this function.
    fn cargo(self, root: &Path) -> Result<Command> {
        let mut cargo = Command::new(env::var("CARGO")?);
        cargo.current_dir(root).env_clear();
        cargo.envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_passed_on)));
        let mut flags = remappings(root)?;
        // What several functions have in common is there once: 75 KB of the program for x86_64; for arm64 LLVM does so unasked.
        flags.push("-Cllvm-args=-enable-machine-outliner=always".to_owned());
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        // The program reports a fault before its stack is unwound (node/src/report/fault.rs), and is a fifth smaller without.
        cargo.env("CARGO_PROFILE_RELEASE_PANIC", "abort");
        cargo.args(["lambda", "build", "--locked", "--package", "prefetch-images"]);
        cargo.arg("--target").arg(format!("{}.{GLIBC}", self.target));
        let other = self.other_compiler.map(|compiler| root.join(compiler));
        if let Some(compiler) = other.filter(|compiler| compiler.exists())
            && !self.has_standard_library()?
        {
            cargo.env("RUSTC", compiler).arg("--skip-target-check");
        }
        Ok(cargo)
    }

    /// Tells whether the compiler of this build has the processor's standard library.
    fn has_standard_library(self) -> Result<bool> {
        let mut rustc = Command::new(env::var("RUSTC")?);
        let told = rustc
            .args(["--print", "target-libdir", "--target", self.target])
            .output()?;
        Ok(Path::new(String::from_utf8(told.stdout)?.trim()).is_dir())
    }
}

fn is_passed_on(name: &str) -> bool {
    PASSED_ON.contains(&name) || PASSED_ON_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the compiler's arguments that put the same names in the places of this machine's paths.
fn remappings(root: &Path) -> Result<Vec<String>> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .ok_or("there is no CARGO_HOME")?;
    let sources = home.join("registry/src");
    let registries = fs::read_dir(&sources)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.path(), "/crates"));
    let paths = [(home.clone(), "/cargo"), (root.to_owned(), "/eks-image-prefetch")]
        .into_iter()
        .chain(registries);
    Ok(paths
        .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
        .collect())
}
