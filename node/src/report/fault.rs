//! A fault of this program: every image is reported all the same, and it ends.

use std::{
    io,
    panic::{self, PanicHookInfo},
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prefetch::{
    image::Image,
    outcome::{NodeReason, Status},
};

use super::{
    line::Line,
    output::{one_line, print},
};

/// Bounds what is said of a fault, in characters.
const MAX_FAULT: usize = 500;
/// Names the exit code of a command of which images were not brought.
const FAILED: i32 = 1;

/// Holds the images that have no line yet.
static UNTOLD: Mutex<Vec<Image>> = Mutex::new(Vec::new());

/// Has faults reported: what there is no line of yet failed, and may be tried again.
///
/// Nothing is gone on with: the program is built without the unwinding of its stack, a fifth of its size.
pub fn report_for(images: &[Image]) {
    UNTOLD
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend_from_slice(images);
    panic::set_hook(Box::new(end));
}

/// Notes that an image has its line; one that was named twice has two.
pub(super) fn told(image: &Image) {
    let mut untold = UNTOLD.lock().unwrap_or_else(PoisonError::into_inner);
    take(&mut untold, image);
}

fn take(untold: &mut Vec<Image>, image: &Image) {
    if let Some(place) = untold.iter().position(|other| other == image) {
        untold.remove(place);
    }
}

fn end(fault: &PanicHookInfo<'_>) {
    let words: String = one_line(&fault.to_string()).chars().take(MAX_FAULT).collect();
    print(io::stderr().lock(), &format!("prefetch-images: {words}"));
    if let Ok(untold) = UNTOLD.try_lock() {
        for image in untold.iter() {
            print(io::stdout().lock(), &line(image));
        }
    }
    process::exit(FAILED);
}

fn line(image: &Image) -> String {
    let line = Line {
        image,
        status: Status::Failed,
        reason: Some(NodeReason::Interrupted),
        spent: Duration::ZERO,
        bytes: 0,
        attempts: 0,
    };
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_was_named_twice_is_told_twice() {
        let image: Image = format!("registry.example/app@sha256:{}", "a".repeat(64))
            .parse()
            .unwrap();
        let mut untold = vec![image.clone(), image.clone()];
        take(&mut untold, &image);
        assert_eq!(untold.len(), 1);
        take(&mut untold, &image);
        take(&mut untold, &image);
        assert!(untold.is_empty());
        assert!(line(&image).contains(r#""status":"failed","reason":"interrupted""#));
    }
}
