//! For tests: time that passes when all there is to do waits, and SSM as it answers under it.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ssm::config::{AsyncSleep, Credentials, SharedAsyncSleep, SharedCredentialsProvider, Sleep};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;

use crate::aws::{patient_retries, patient_timeouts};

/// Time that passes only in [`VirtualTime::run`].
#[derive(Clone, Debug, Default)]
pub struct VirtualTime(Arc<Mutex<Clock>>);

#[derive(Debug, Default)]
struct Clock {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    count: u64,
}

impl VirtualTime {
    /// Returns how much time has passed.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    /// Waits for so long.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let mut clock = self.0.lock().unwrap();
        clock.count += 1;
        Sleep::new(Sleeper {
            key: (clock.now + duration, clock.count),
            time: self.clone(),
        })
    }

    /// Does all works side by side, and gives what became of each.
    pub fn run<T>(&self, works: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut works: Vec<_> = works.into_iter().map(|work| (Box::pin(work), None)).collect();
        loop {
            for (work, done) in works.iter_mut().filter(|(_, done)| done.is_none()) {
                if let Poll::Ready(outcome) = work.as_mut().poll(&mut context) {
                    *done = Some(outcome);
                }
            }
            if works.iter().all(|(_, done)| done.is_some()) {
                return works.into_iter().filter_map(|(_, done)| done).collect();
            }
            if !woken.0.swap(false, Ordering::SeqCst) {
                self.pass();
            }
        }
    }

    /// Passes to the moment for which something waits next.
    fn pass(&self) {
        let mut clock = self.0.lock().unwrap();
        let next = clock.sleepers.keys().next().expect("something waits for a moment").0;
        clock.now = next;
        let later = clock.sleepers.split_off(&(next, u64::MAX));
        for waker in std::mem::replace(&mut clock.sleepers, later).into_values() {
            waker.wake();
        }
    }
}

impl AsyncSleep for VirtualTime {
    fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep(duration)
    }
}

struct Sleeper {
    time: VirtualTime,
    /// Tells when it ends, and its number.
    key: (Duration, u64),
}

impl Future for Sleeper {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut clock = self.time.0.lock().unwrap();
        if clock.now >= self.key.0 {
            return Poll::Ready(());
        }
        clock.sleepers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.time.0.lock().unwrap().sleepers.remove(&self.key);
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Tells how SSM answers a SendCommand.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// It takes it, after this time.
    Taken(Duration),
    /// It answers at once that there were too many.
    Throttled,
    /// It never answers.
    Never,
}

/// Returns the set-up of a function that has the time to wait, in a cloud that answers each request so by its body.
pub fn patient_config(time: &VirtualTime, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> SdkConfig {
    let ssm = SharedHttpConnector::new(Ssm {
        time: time.clone(),
        answer: Box::new(answer),
    });
    let credentials = Credentials::new("key", "secret", None, None, "mocks");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client_fn(move |_, _| ssm.clone()))
        .retry_config(patient_retries())
        .timeout_config(patient_timeouts())
        .sleep_impl(SharedAsyncSleep::new(time.clone()))
        .build()
}

struct Ssm {
    time: VirtualTime,
    answer: Box<dyn Fn(&str) -> Answer + Send + Sync>,
}

impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ssm")
    }
}

impl HttpConnector for Ssm {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = request.body().bytes().unwrap_or_default();
        let (wait, status, body) = match (self.answer)(&String::from_utf8_lossy(body)) {
            Answer::Taken(wait) => (
                wait,
                200,
                r#"{"Command": {"CommandId": "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b"}}"#,
            ),
            Answer::Throttled => (
                Duration::ZERO,
                400,
                r#"{"__type": "ThrottlingException", "message": "Rate exceeded"}"#,
            ),
            Answer::Never => return HttpConnectorFuture::new(std::future::pending()),
        };
        let slept = self.time.sleep(wait);
        HttpConnectorFuture::new(async move {
            slept.await;
            let status = StatusCode::try_from(status).expect("it is a status");
            Ok(HttpResponse::new(status, SdkBody::from(body)))
        })
    }
}
