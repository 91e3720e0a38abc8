//! S3, which keeps objects that never change.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::{
    Client,
    config::retry::RetryConfig,
    operation::put_object::{PutObjectError, PutObjectOutput},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use prefetch::fault;

use crate::cloud::state::State;

pub fn client(state: &Arc<Mutex<State>>) -> Client {
    let shared = Arc::clone(state);
    let put = mock!(Client::put_object).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("PutObject") {
            return fault!(aws_sdk_s3, PutObjectError, code);
        }
        let body = String::from_utf8(input.body().bytes().unwrap().to_vec()).unwrap();
        assert_eq!(input.bucket(), Some("records"));
        let key = input.key().unwrap().to_owned();
        let before = state.objects.insert(key, body.clone());
        assert!(before.is_none_or(|before| before == body), "an object never changes");
        MockResponse::Output(PutObjectOutput::builder().build())
    });
    mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&put], |config| {
        config.retry_config(RetryConfig::disabled())
    })
}
