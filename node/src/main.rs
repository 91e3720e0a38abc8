//! The program that the Command document runs on a node.

use std::{env, process::ExitCode};

use prefetch_images::{
    host::Host,
    parameters::{Parameters, TagParameters},
    report, resolve, run,
};
use tokio::{runtime::Builder, time::Instant};

/// Names the exit code for parameters that cannot be used, or a node that is not supported: nothing was done.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let host = match words[..] {
        [] => Host::here(),
        ["--host-root=host-container"] => Host::around_host_container(),
        ["--version"] => {
            report::print_version(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => return refuse("it takes no arguments, but for --host-root=host-container or --version"),
    };
    match command(host) {
        Ok(code) => ExitCode::from(code),
        Err(why) => refuse(&why),
    }
}

/// Runs what the document that was sent is for: it names images, or tags.
fn command(host: Host) -> Result<u8, String> {
    let variable = |name: &str| env::var(name).ok();
    if let Some(parameters) = TagParameters::read(variable) {
        let parameters = parameters?;
        report::fault::report_for(&[]);
        return block_on(resolve::run(&parameters, &host, Instant::now()));
    }
    let parameters = Parameters::read(variable)?;
    report::fault::report_for(&parameters.images);
    block_on(run::run(&parameters, host, Instant::now()))
}

fn block_on(command: impl Future<Output = Result<u8, String>>) -> Result<u8, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("it cannot begin: {error}"))?;
    let code = runtime.block_on(command);
    // What still hangs in a thread, such as the look-up of a host name, is not waited for.
    runtime.shutdown_background();
    code
}

fn refuse(why: &str) -> ExitCode {
    report::refuse(why);
    ExitCode::from(REFUSED)
}
