//! The programs that were built into this function, by processor.

/// The nodes' program for one processor.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The processor, as SSM's and Lambda's architectures are called.
    pub processor: Processor,
    /// The program that nodes execute.
    pub content: &'static [u8],
}

/// A processor that nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// Intel's and AMD's.
    X86_64,
    /// Graviton.
    Arm64,
}

impl Processor {
    /// Returns the name of the file that a program is.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::X86_64 => "prefetch-images-x86_64",
            Self::Arm64 => "prefetch-images-arm64",
        }
    }

    /// Returns the name of the attribute by which the document gets the program's digest.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Self::X86_64 => "X8664Digest",
            Self::Arm64 => "Arm64Digest",
        }
    }
}

/// Returns the programs that were built; `build.rs` leaves a file empty where one was not.
#[must_use]
pub fn built() -> Vec<Program> {
    let contents: [(Processor, &'static [u8]); 2] = [
        (Processor::X86_64, include_bytes!(concat!(env!("OUT_DIR"), "/x86_64"))),
        (Processor::Arm64, include_bytes!(concat!(env!("OUT_DIR"), "/arm64"))),
    ];
    let programs = contents.map(|(processor, content)| Program { processor, content });
    programs
        .into_iter()
        .filter(|program| !program.content.is_empty())
        .collect()
}
