//! Runs a login helper: on no command line, with an end.

use std::{collections::BTreeMap, env, ffi::OsString, io, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Bounds the answer that is read, in bytes; ECR's has some 3,000.
const MAX_ANSWER: usize = 1 << 20;

/// Bounds what is kept of a helper's complaints, in bytes.
const MAX_WORDS: usize = 500;

/// Bounds the wait for the output of a helper that has ended, and left a child that has its output open.
const DRAIN: Duration = Duration::from_millis(100);

/// Tells why a helper gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// There is no such program.
    #[error("there is no such program")]
    Missing,
    /// It could not be started.
    #[error("it could not be started: {0}")]
    Start(#[source] io::Error),
    /// It was ended.
    #[error("it was ended after {} seconds{}", .after.as_secs(), with(.words))]
    TooSlow {
        /// The time that it had.
        after: Duration,
        /// Its last complaint.
        words: String,
    },
    /// It ended otherwise than well.
    #[error("{ended}{}", with(.words))]
    Failed {
        /// Its exit status.
        ended: std::process::ExitStatus,
        /// Its last complaint.
        words: String,
    },
    /// It answered without end.
    #[error("its answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

fn with(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(": {words}")
    }
}

/// Runs a program with further variables in its environment, and returns what it prints.
///
/// It has a process group of its own, which is killed as a whole once its time is over, or this future is dropped. Where this
/// process itself is killed, `timeout` ends it.
///
/// # Errors
/// That it gives no answer in time, and why.
pub async fn run(
    words: &[String],
    environment: &BTreeMap<String, String>,
    request: &[u8],
    within: Duration,
) -> Result<Vec<u8>, HelperError> {
    let (program, arguments) = words.split_first().ok_or(HelperError::Missing)?;
    if !is_there(program, environment) {
        return Err(HelperError::Missing);
    }
    let mut command = Command::new("timeout");
    command.arg("--kill-after=1").arg((within.as_secs() + 2).to_string());
    command.arg(program).args(arguments).envs(environment).process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut group = Group(command.spawn().map_err(HelperError::Start)?);
    let (mut answer, mut complaint) = (Vec::new(), Vec::new());
    let ended = timeout(within, group.budget(request, &mut answer, &mut complaint)).await;
    let words = last_words(&complaint);
    match ended {
        Err(_) => Err(HelperError::TooSlow { after: within, words }),
        Ok(Err(error)) => Err(HelperError::Start(error)),
        Ok(Ok(_)) if answer.len() > MAX_ANSWER => Err(HelperError::TooLong),
        Ok(Ok(ended)) if !ended.success() => Err(HelperError::Failed { ended, words }),
        Ok(Ok(_)) => Ok(answer),
    }
}

/// Tells whether there is a program, by its path, or by its name in the folders of `PATH`.
fn is_there(program: &str, environment: &BTreeMap<String, String>) -> bool {
    if program.contains('/') {
        return Path::new(program).exists();
    }
    let folders = environment.get("PATH").map(OsString::from);
    let folders = folders.or_else(|| env::var_os("PATH")).unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// A child and its process group, which does not outlive it.
struct Group(Child);

impl Group {
    /// Hands the request over, and reads until the child has ended.
    async fn budget(
        &mut self,
        request: &[u8],
        answer: &mut Vec<u8>,
        complaint: &mut Vec<u8>,
    ) -> io::Result<std::process::ExitStatus> {
        let (input, output, errors) = (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take());
        let ask = async {
            if let Some(mut input) = input {
                // A helper that needs no request may close it unread.
                drop(input.write_all(request).await);
            }
        };
        let pid = self.0.id();
        let whole = async {
            tokio::join!(ask, read(output, answer, MAX_ANSWER), read_end(errors, complaint));
        };
        tokio::pin!(whole);
        let ended = tokio::select! {
            ended = self.0.wait() => {
                tokio::select! {
                    () = &mut whole => {}
                    () = sleep(DRAIN) => kill(pid), // a child of it has the output open: the group is still there
                }
                ended?
            }
            () = &mut whole => self.0.wait().await?,
        };
        Ok(ended)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.0.id()); // none once it was waited for
    }
}

fn kill(pid: Option<u32>) {
    if let Some(group) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        kill_process_group(group, Signal::KILL).ok(); // it may just have ended
    }
}

/// Reads a little more than may be read, and then lets the rest go.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, at_most: usize) {
    if let Some(from) = from {
        drop(from.take(at_most as u64 + 1).read_to_end(into).await);
    }
}

/// Reads to the end and keeps the end, of a longer text a byte more than is told.
async fn read_end(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut part).await {
        into.extend_from_slice(part.get(..length).unwrap_or_default());
        into.drain(..into.len().saturating_sub(MAX_WORDS + 1));
    }
}

/// Puts the end of what a helper complained of on one line, without the user and the password of an address. The first word
/// of what is cut off may be a part of such an address.
fn last_words(complaint: &[u8]) -> String {
    let is_cut = complaint.len() > MAX_WORDS;
    let text = String::from_utf8_lossy(complaint);
    let words: Vec<_> = text
        .split(|character: char| character.is_whitespace() || character.is_control())
        .skip(usize::from(is_cut))
        .filter(|word| !word.is_empty())
        .map(without_user)
        .collect();
    words.join(" ")
}

fn without_user(word: &str) -> String {
    match word.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://…@{host}"),
            None => word.to_owned(),
        },
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn shell(script: &str, within: Duration) -> Result<String, HelperError> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let environment = BTreeMap::from([("GIVEN".to_owned(), "by the unit".to_owned())]);
        let answer = run(&words, &environment, b"request", within).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_helper_gets_the_request_and_both_environments() {
        let answer = shell(r#"read -r request; echo "$request, $GIVEN, ${PATH:+a path}""#, LONG).await;
        assert_eq!(answer.unwrap(), "request, by the unit, a path\n");
    }

    #[tokio::test]
    async fn what_a_helper_complained_of_is_told_on_one_line_without_a_proxys_password() {
        let error = shell(
            "echo first >&2; echo ' at http://me:secret@proxy:3128' >&2; exit 3",
            LONG,
        )
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "exit status: 3: first at http://…@proxy:3128");
    }

    #[tokio::test]
    async fn of_a_long_complaint_no_part_of_a_password_is_told() {
        let end = "x".repeat(470);
        let script = format!("echo 'at http://me:secret@proxy:3128 {end} end' >&2; exit 3");
        let error = shell(&script, LONG).await.unwrap_err();
        assert_eq!(error.to_string(), format!("exit status: 3: {end} end"));
    }

    #[tokio::test]
    async fn timeout_ends_a_helper_that_hangs_where_the_command_was_killed() {
        let environment = BTreeMap::new();
        let words = ["/bin/sh", "-c", "tr '\\0' ' ' </proc/$PPID/cmdline"].map(str::to_owned);
        let parent = run(&words, &environment, b"", LONG).await.unwrap();
        let parent = String::from_utf8(parent).unwrap();
        assert!(parent.starts_with("timeout --kill-after=1 22 /bin/sh "), "{parent}");
    }

    #[tokio::test]
    async fn a_helper_that_hangs_ends_with_all_its_children() {
        let file = std::env::temp_dir().join(format!("prefetch-images-helper-{}", std::process::id()));
        let script = format!("(sleep 2; echo alive >{0}) & echo wait >&2; sleep 300", file.display());
        let error = shell(&script, Duration::from_millis(500)).await.unwrap_err();
        assert_eq!(error.to_string(), "it was ended after 0 seconds: wait");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_helper_whose_question_is_dropped_ends() {
        let file = std::env::temp_dir().join(format!("prefetch-images-dropped-{}", std::process::id()));
        let script = format!("sleep 1; echo alive >{}", file.display());
        assert!(timeout(Duration::from_millis(300), shell(&script, LONG)).await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_output_open_holds_nobody() {
        let began = Instant::now();
        assert_eq!(shell("sleep 300 & echo answer", LONG).await.unwrap(), "answer\n");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off_and_a_request_that_nobody_reads_is_no_failure() {
        assert!(matches!(
            shell("exec cat /dev/zero", LONG).await,
            Err(HelperError::TooLong)
        ));
        assert_eq!(shell("exec <&-; echo answer", LONG).await.unwrap(), "answer\n");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        let words = ["/nonexistent/helper".to_owned()];
        assert!(matches!(
            run(&words, &BTreeMap::new(), b"", LONG).await,
            Err(HelperError::Missing)
        ));
    }
}
