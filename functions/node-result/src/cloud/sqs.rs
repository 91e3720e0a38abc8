//! SQS, which takes messages, or refuses the first of them.

use std::sync::{Arc, Mutex};

use aws_sdk_sqs::{
    Client,
    config::retry::RetryConfig,
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{BatchResultErrorEntry, SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use prefetch::fault;

use crate::cloud::state::State;

pub fn client(state: &Arc<Mutex<State>>) -> Client {
    let shared = Arc::clone(state);
    let send = mock!(Client::send_message_batch).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let entries = input.entries();
        let bytes = entries.iter().map(|entry| entry.message_body().len());
        assert!(entries.len() <= 10 && bytes.sum::<usize>() <= 256 * 1024);
        let (first, others) = entries.split_first().unwrap();
        match state.calls.note("SendMessageBatch") {
            Some("Refused") => return MockResponse::Output(output(others, vec![refused(first)])),
            Some("Unconfirmed") => return MockResponse::Output(output(others, Vec::new())),
            Some(code) => return fault!(aws_sdk_sqs, SendMessageBatchError, code),
            None => {}
        }
        let message = |entry: &SendMessageBatchRequestEntry| {
            let queue = input.queue_url().unwrap().to_owned();
            let delay = entry.delay_seconds().expect("the queue's own delay is not meant");
            (queue, delay, serde_json::from_str(entry.message_body()).unwrap())
        };
        state.messages.extend(entries.iter().map(message));
        MockResponse::Output(output(entries, Vec::new()))
    });
    mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&send], |config| {
        config.retry_config(RetryConfig::disabled())
    })
}

fn output(confirmed: &[SendMessageBatchRequestEntry], failed: Vec<BatchResultErrorEntry>) -> SendMessageBatchOutput {
    let confirmed = confirmed.iter().map(|entry| {
        let confirmed = SendMessageBatchResultEntry::builder().id(entry.id());
        let confirmed = confirmed.message_id("message").md5_of_message_body("md5");
        confirmed.build().unwrap()
    });
    SendMessageBatchOutput::builder()
        .set_successful(Some(confirmed.collect()))
        .set_failed(Some(failed))
        .build()
        .unwrap()
}

fn refused(entry: &SendMessageBatchRequestEntry) -> BatchResultErrorEntry {
    let refused = BatchResultErrorEntry::builder().id(entry.id());
    refused.code("InternalError").sender_fault(false).build().unwrap()
}
