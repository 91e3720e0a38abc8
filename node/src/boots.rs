//! The reports of the node's boot: user data has them made before SSM reaches the node, and a later command brings them along.

use std::{
    env, fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{host::Host, report::Reporter};

/// Names the folder in which user data leaves the report of a list as `<list>.stdout` (examples/boot/boot.sh), on the host.
const FOLDER: &str = "/var/lib/prefetch-images/boot";
/// End the name of a report's file, before and after it was brought along.
const REPORT: &str = ".stdout";
const BROUGHT: &str = ".reported";
/// Ends the name of a rule's second list.
const MORE: &str = ".more";
/// Names the variable that is set for a boot itself, which brings nothing along.
const AT_BOOT: &str = "PREFETCH_IMAGES_AT_BOOT";
/// Bounds the report that waits for a command beside whose lines SSM returns all of it, in characters; a boot list makes none
/// that is longer.
const PATIENT: usize = 12_000;

/// Returns the names of the lists of whose boots a report is left: a rule's name, or that of its second list. An empty one is
/// only begun, or of a boot that could not begin: its stderr says why.
#[must_use]
pub fn left(host: &Host) -> Vec<String> {
    if is_boot() {
        return Vec::new();
    }
    let folder = host.path(FOLDER);
    let has_lines = |name: &String| fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 0);
    let names = host.list(FOLDER).into_iter().filter(has_lines);
    names
        .filter_map(|name| Some(name.strip_suffix(REPORT)?.to_owned()))
        .collect()
}

/// Returns true in a boot's own command: its report is left for a later one.
#[must_use]
pub fn is_boot() -> bool {
    env::var_os(AT_BOOT).is_some()
}

/// Prints the reports that are left of the boots with these lists, each line with its rule and with when the boot began and
/// ended. It is for whoever has the node's turn: a boot that still works has it.
pub fn bring_along(lists: &[String], host: &Host, reporter: &Reporter) {
    for list in lists {
        let file = Path::new(FOLDER).join(format!("{list}{REPORT}"));
        let Some(text) = host.read(&file) else {
            reporter.say(&format!("the report {} cannot be read", file.display()));
            continue;
        };
        let times = moments(&host.path(&file)).unwrap_or_default();
        if !print(list, &text, times, reporter) {
            continue;
        }
        let renamed = Path::new(FOLDER).join(format!("{list}{BROUGHT}"));
        if let Err(error) = fs::rename(host.path(&file), host.path(&renamed)) {
            reporter.say(&format!(
                "the report {} comes again, it cannot be renamed: {error}",
                file.display()
            ));
        }
    }
}

/// Prints the lines of a boot's report; returns false, and prints none, where they fit beside another command's.
fn print(list: &str, text: &str, (began, ended): (u64, u64), reporter: &Reporter) -> bool {
    let rule = list.strip_suffix(MORE).unwrap_or(list);
    let boot = format!(r#","boot":{{"rule":"{rule}","began":{began},"ended":{ended}}}}}"#);
    let lines = text.lines().filter(|line| line.starts_with(r#"{"image":""#));
    let lines: Vec<String> = lines
        .filter_map(|line| Some(line.strip_suffix('}')?.to_owned() + &boot))
        .collect();
    let length: usize = lines.iter().map(|line| line.len() + 1).sum();
    if length > reporter.room_for_lines() && length <= PATIENT {
        reporter.say(&format!(
            "the report of the boot with the list {list} comes with another command"
        ));
        return false;
    }
    let brought = lines.iter().filter(|line| reporter.bring_along(line)).count();
    // What is no line of ours, such as one that was cut off, is lost too.
    let left_out = text.lines().count() - brought;
    if left_out > 0 {
        let words = format!("of the boot with the list {list} {left_out} lines are left out, they are in {FOLDER}");
        reporter.say(&words);
    }
    true
}

/// Returns when a report was begun and when its last line was written, in seconds since the epoch.
fn moments(file: &Path) -> io::Result<(u64, u64)> {
    let about = fs::metadata(file)?;
    let ended = about.modified()?;
    // Not every file system knows.
    let began = about.created().unwrap_or(ended).min(ended);
    let seconds = |moment: SystemTime| moment.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    Ok((seconds(began), seconds(ended)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Folder;

    const LINE: &str = r#"{"image":"registry.example/team/app:v1@sha256:0","status":"pulled","attempts":1}"#;

    /// Has a boot's report brought along, and returns which files are there then, and how many characters were printed.
    fn brought(report: &str, reporter: &Reporter) -> (Vec<String>, usize) {
        brought_of("default", report, reporter)
    }

    fn brought_of(list: &str, report: &str, reporter: &Reporter) -> (Vec<String>, usize) {
        let folder = Folder::new().with(&format!("var/lib/prefetch-images/boot/{list}.stdout"), report);
        let before = reporter.room_for_lines();
        bring_along(&left(&folder.host()), &folder.host(), reporter);
        (folder.host().list(FOLDER), before - reporter.room_for_lines())
    }

    #[test]
    fn a_report_is_brought_along_with_its_rule_and_times() {
        let (names, printed) = brought(&format!("{LINE}\ngarbled\n"), &Reporter::new(false));
        let boot = r#","boot":{"rule":"default","began":1764527000,"ended":1764527000}"#;
        assert_eq!(names, ["default.reported"]);
        assert_eq!(printed, LINE.len() + boot.len() + 1);
    }

    #[test]
    fn a_report_of_a_rules_second_list_is_of_the_rule() {
        let first = brought(LINE, &Reporter::new(false));
        let second = brought_of("default.more", LINE, &Reporter::new(false));
        assert_eq!(second, (vec!["default.more.reported".to_owned()], first.1));
    }

    #[test]
    fn a_report_that_is_not_begun_stays_and_so_does_one_for_which_there_is_no_room() {
        assert_eq!(
            brought("", &Reporter::new(false)),
            (vec!["default.stdout".to_owned()], 0)
        );
        let reporter = Reporter::new(false);
        while reporter.bring_along(&"x".repeat(100)) {}
        assert_eq!(brought(LINE, &reporter).0, ["default.stdout"]);
    }

    #[test]
    fn of_a_report_that_never_fits_what_fits_is_brought_along() {
        let (names, printed) = brought(&format!("{LINE}\n").repeat(500), &Reporter::new(false));
        assert_eq!(names, ["default.reported"]);
        assert!(printed > 20_000, "{printed}");
    }
}
