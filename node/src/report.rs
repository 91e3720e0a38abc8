//! The report of a command: a line of JSON for each image, and words for people within what SSM returns.

pub mod fault;
mod line;
mod output;

use std::{cell::Cell, io};

use prefetch::{image::Image, outcome::NodeReason, tag_line::TagLine};

pub use self::line::Line;
use self::output::{one_line, print};
use crate::failure::Failure;

/// Bounds the characters on standard output, of which SSM returns the first 24,000 (SSM service model): what is brought along
/// takes no room of the command's own lines.
const MAX_LINES: usize = 23_900;
/// Bounds the characters of the line of totals that may come last: room for it is kept.
const LAST: usize = 200;
/// Bounds the characters on standard error, of which SSM returns the first 8,000 (SSM service model).
const MAX_WORDS: usize = 7_000;
/// Bounds the part of these that the command itself says; its images share the rest.
const OWN_WORDS: usize = MAX_WORDS / 5;
/// Bounds the part of an image's name that is said, in characters: its end.
const MAX_NAME: usize = 60;
/// Bounds the part of a cause that is said, from the least to which one is cut, in characters.
const CAUSE: std::ops::Range<usize> = 20..300;

/// Standard output and standard error, for one command. A reader that is gone ends neither the command nor its images.
#[derive(Debug)]
pub struct Reporter {
    /// The prefix of every line for people.
    prefix: &'static str,
    /// True where lines are printed: the images of a command that gave way to this one have none.
    has_lines: bool,
    /// Characters of the lines that were printed.
    printed: Cell<usize>,
    /// Characters that the command may still say.
    left: Cell<usize>,
}

/// Counts the characters that may still be said of one image.
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Reporter {
    /// Speaks for a command.
    #[must_use]
    pub fn new(report_only: bool) -> Self {
        Self {
            prefix: if report_only { "report only: " } else { "" },
            has_lines: true,
            printed: Cell::new(0),
            left: Cell::new(OWN_WORDS),
        }
    }

    /// Speaks for a command that gave way to this one: what it still may say, and no lines.
    #[must_use]
    pub fn without_lines(&self) -> Self {
        Self {
            prefix: "for another command: ",
            has_lines: false,
            printed: Cell::new(0),
            left: Cell::new(self.left.get()),
        }
    }

    /// Takes over what another has left to say.
    pub fn go_on_from(&self, other: &Self) {
        self.left.set(other.left.get());
    }

    /// Shares what may be said of images among so many.
    #[must_use]
    pub fn budget_of_each(&self, images: usize) -> Budget {
        let all = if self.has_lines { MAX_WORDS - OWN_WORDS } else { 0 };
        Budget(Cell::new(all / images.max(1)))
    }

    /// Prints an image's line, whole and at once.
    pub fn report(&self, line: &Line) {
        if self.has_lines {
            self.print_line(&line.to_string());
            fault::told(line.image);
        }
    }

    /// Prints a line that is none of the command's images; returns false, and prints nothing, where SSM would not return it.
    pub fn bring_along(&self, line: &str) -> bool {
        let fits = line.len() < self.room_for_lines();
        if fits {
            self.print_line(line);
        }
        fits
    }

    /// Returns how many characters of lines SSM would still return.
    #[must_use]
    pub fn room_for_lines(&self) -> usize {
        (MAX_LINES - LAST).saturating_sub(self.printed.get())
    }

    /// Prints the last line, for which there is always room.
    pub fn conclude(&self, line: &str) {
        self.print_line(line);
    }

    fn print_line(&self, line: &str) {
        self.printed.set(self.printed.get() + line.len() + 1);
        print(io::stdout().lock(), line);
    }

    /// Tells people something of the command.
    pub fn say(&self, words: &str) {
        self.say_within(&self.left, words);
    }

    /// Tells people what became of an attempt: the end of the image's name, the reason, and the end of the cause, where the
    /// innermost stands.
    pub fn tell(&self, budget: &Budget, image: &Image, attempt: u32, reason: NodeReason, cause: &str) {
        self.say_within(&budget.0, &words(budget.0.get(), image, attempt, reason, cause));
    }

    /// Tells people that an attempt failed.
    pub fn tell_failure(&self, budget: &Budget, image: &Image, attempt: u32, failure: &Failure) {
        self.tell(budget, image, attempt, failure.reason, &failure.detail);
    }

    fn say_within(&self, left: &Cell<usize>, words: &str) {
        let line = one_line(&format!("prefetch-images: {}{words}", self.prefix));
        let line: String = line.chars().take(left.get()).collect();
        left.set(left.get() - line.chars().count());
        if !line.is_empty() {
            print(io::stderr().lock(), &line);
        }
    }
}

/// Says on one line why nothing is done.
pub fn refuse(why: &str) {
    print(io::stderr().lock(), &one_line(&format!("prefetch-images: {why}")));
}

/// Prints the line of a tag.
pub fn print_tag(line: &TagLine) {
    print(io::stdout().lock(), &line.to_string());
}

/// Returns the end of a cause, where the innermost stands, as far as it is said.
#[must_use]
pub fn shown(cause: &str) -> String {
    end(&one_line(cause), CAUSE.end)
}

/// Says which program this is.
pub fn print_version(name: &str, version: &str) {
    print(io::stdout().lock(), &format!("{name} {version}"));
}

fn words(left: usize, image: &Image, attempt: u32, reason: NodeReason, cause: &str) -> String {
    let name = end(&image.name_by_tag().unwrap_or_else(|| image.name_by_digest()), MAX_NAME);
    let room = left.saturating_sub(name.chars().count() + reason.as_str().len() + 40);
    let cause = match room.min(CAUSE.end) {
        room if room < CAUSE.start && cause.chars().count() > room => String::new(),
        room => end(cause, room),
    };
    let separator = if cause.is_empty() { "" } else { ": " };
    format!("{name}: attempt {attempt}: {reason}{separator}{cause}")
}

/// Returns a text's last characters, so many at most.
fn end(text: &str, at_most: usize) -> String {
    let length = text.chars().count();
    if length <= at_most {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(length - at_most + 1).collect();
    format!("…{kept}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefetch::outcome::{self, Status};
    use proptest::prelude::*;

    use super::*;

    fn image() -> Image {
        let digest = "0123456789abcdef".repeat(4);
        format!("registry.example/team/app:v1@sha256:{digest}").parse().unwrap()
    }

    #[test]
    fn a_line_is_what_the_functions_read() {
        let image = image();
        let line = Line {
            image: &image,
            status: Status::Pulled,
            reason: Some(NodeReason::TagMoved),
            spent: Duration::from_micros(1_012_900),
            bytes: 25_166_482,
            attempts: 2,
        };
        let read = outcome::Line::parse(&line.to_string()).unwrap();
        assert_eq!((read.image.clone(), read.status), (image.clone(), Status::Pulled));
        assert_eq!((read.reason.as_str(), read.seconds), ("tag-moved", 1.012));
        assert_eq!((read.bytes, read.attempts), (25_166_482, 2));
    }

    #[test]
    fn all_that_is_said_is_within_what_ssm_returns() {
        let reporter = Reporter::new(true);
        for _ in 0..100 {
            reporter.say(&"word ".repeat(100));
        }
        assert_eq!(reporter.left.get(), 0);
        let budget = reporter.budget_of_each(50);
        for attempt in 1..=4 {
            reporter.tell(
                &budget,
                &image(),
                attempt,
                NodeReason::Registry,
                &"cause ".repeat(1_000),
            );
        }
        assert_eq!(budget.0.get(), 0);
    }

    #[test]
    fn the_innermost_cause_and_the_end_of_the_name_are_told() {
        let long: Image = format!(
            "registry.example/{}/app:v1@{}",
            "team/".repeat(30).trim_end_matches('/'),
            image().digest()
        )
        .parse()
        .unwrap();
        let said = words(
            300,
            &long,
            1,
            NodeReason::Denied,
            &format!("{} the end", "x".repeat(500)),
        );
        assert!(said.starts_with('…') && said.contains("/app:v1: attempt 1: denied: …"));
        assert!(said.ends_with("the end"));
        assert!(!words(100, &image(), 1, NodeReason::Timeout, "").ends_with(": "));
    }

    proptest! {
        #[test]
        fn whatever_is_said_stands_on_one_line(cause in any::<String>(), left in 0usize..10_000) {
            prop_assert!(!one_line(&words(left, &image(), 1, NodeReason::Registry, &cause)).contains('\n'));
            prop_assert!(end(&cause, left.max(1)).chars().count() <= left.max(1));
        }
    }
}
