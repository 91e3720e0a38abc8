//! The set-up every function's AWS clients share: how they speak TLS, and for how long they wait.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_ssm::config::{AsyncSleep, Sleep};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use tokio::time::Instant;

/// Sets how long one try of a call may take: an answer that takes five seconds is still one.
const TRY: Duration = Duration::from_secs(8);
/// Sets how long a call may take with all its tries, of a function that makes several within 25 seconds or more.
pub(crate) const CALL: Duration = Duration::from_secs(20);
/// Sets how long a call may take of a function that has the time to wait for its turn.
const PATIENT_CALL: Duration = Duration::from_secs(100);
/// Limits how often such a call is tried: at SSM's ten commands a second a burst of some hundred waits for its turn.
const PATIENT_TRIES: u32 = 8;
/// Names what is left of an invocation to say what could not be done.
const TO_SAY_SO: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// Tells when the invocation is to have ended.
    static DEADLINE: Instant;
}

/// Loads Region, credentials and endpoint from the environment for clients that speak TLS through rustls and ring.
///
/// A call ends within 20 seconds, and within what is left of the invocation (see [`until`]).
pub async fn config() -> SdkConfig {
    loader().timeout_config(timeouts(CALL)).load().await
}

/// Loads the same for a function that has the time to wait where AWS throttles: a call is tried 8 times, for up to 100
/// seconds.
pub async fn patient_config() -> SdkConfig {
    let loader = loader().timeout_config(patient_timeouts());
    loader.retry_config(patient_retries()).load().await
}

fn loader() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .sleep_impl(InvocationSleep)
}

/// Returns how often a patient call is tried.
pub(crate) fn patient_retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(PATIENT_TRIES)
}

/// Returns how long a patient call may take.
pub(crate) fn patient_timeouts() -> TimeoutConfig {
    timeouts(PATIENT_CALL)
}

pub(crate) fn timeouts(call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(TRY)
        .operation_timeout(call)
        .build()
}

/// Does work of an invocation that Lambda ends at this moment: two seconds before, calls to AWS end with an error, and those
/// that begin later do at once.
pub fn until<T>(deadline: SystemTime, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    within(left.saturating_sub(TO_SAY_SO), work)
}

/// Does work in which calls to AWS end with an error after this time, or sooner where the invocation has less.
pub fn within<T>(time: Duration, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(work);
    async move {
        let deadline = Instant::now() + time;
        let deadline = DEADLINE.try_with(|outer| deadline.min(*outer)).unwrap_or(deadline);
        DEADLINE.scope(deadline, work).await
    }
}

/// Tells how much time the invocation has left; none where it has no end.
#[must_use]
pub fn left() -> Option<Duration> {
    DEADLINE
        .try_with(|deadline| deadline.saturating_duration_since(Instant::now()))
        .ok()
}

/// Does work that leaves the invocation this time for what comes after it.
pub fn sparing<T>(time: Duration, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(work);
    async move {
        match left() {
            Some(left) => within(left.saturating_sub(time), work).await,
            None => work.await,
        }
    }
}

/// Sleeps no longer than the invocation lasts. The SDK's timeouts and the pauses between its tries are such sleeps.
#[derive(Debug)]
pub(crate) struct InvocationSleep;

impl AsyncSleep for InvocationSleep {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(tokio::time::sleep(left().map_or(duration, |left| duration.min(left))))
    }
}

/// Makes a client that speaks HTTPS through rustls and ring.
///
/// The SDK's default provider, aws-lc, gathers CPU-jitter entropy at its first handshake: about 25 ms of CPU, a third of
/// a second on a 128 MB function (aws-lambda-rust-runtime#1101).
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

#[cfg(all(test, feature = "mocks"))]
mod tests {
    use super::*;
    use crate::mocks::silent_ssm;

    #[test]
    fn a_call_that_is_never_answered_ends_with_the_invocation_and_later_ones_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = silent_ssm();
            let began = Instant::now();
            within(Duration::from_millis(300), async {
                for _ in 0..3 {
                    let error = client.list_commands().send().await.unwrap_err();
                    assert!(
                        matches!(error, aws_sdk_ssm::error::SdkError::TimeoutError(_)),
                        "{error:?}"
                    );
                }
            })
            .await;
            let took = began.elapsed();
            assert!(
                (Duration::from_millis(250)..Duration::from_secs(2)).contains(&took),
                "{took:?}"
            );
        });
    }

    #[test]
    fn an_invocation_that_has_no_time_left_makes_no_call_and_a_part_of_it_has_no_more_than_the_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = silent_ssm();
            let began = Instant::now();
            let soon = SystemTime::now() + TO_SAY_SO;
            let call = within(Duration::from_mins(1), client.list_commands().send());
            until(soon, call).await.unwrap_err();
            until(SystemTime::UNIX_EPOCH, client.list_commands().send())
                .await
                .unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        });
    }

    #[test]
    fn work_that_spares_time_leaves_it_to_what_comes_after() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(within(Duration::from_millis(600), async {
            let client = silent_ssm();
            for (spared, takes) in [(400, 150..350), (0, 250..450)] {
                let began = Instant::now();
                let call = sparing(Duration::from_millis(spared), client.list_commands().send());
                call.await.unwrap_err();
                assert!(takes.contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
            }
        }));
    }
}
