//! Custom resources: what CloudFormation asks a function while it deploys a stack, and the answer that it waits for.

use std::time::Duration;

use aws_smithy_runtime::client::{
    orchestrator::operation::Operation,
    retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier},
};
use aws_smithy_runtime_api::client::{
    http::SharedHttpClient,
    orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
    result::SdkError,
};
use aws_smithy_types::{body::SdkBody, retry::RetryConfig, timeout::TimeoutConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::aws;

/// The longest answer that CloudFormation takes, in bytes (CloudFormation user guide, custom resource response objects).
const MAX_ANSWER: usize = 4096;
/// Limits how often an answer is sent, and how long each time may take: 14 seconds in all, within a function's timeout.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// Holds what CloudFormation asks for (CloudFormation user guide, custom resource request objects).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    /// Says what becomes of the resource.
    pub request_type: RequestType,
    /// The stack's ARN.
    pub stack_id: String,
    /// The resource's name in the template.
    pub logical_resource_id: String,
    /// The resource's properties, whose numbers and booleans are texts.
    #[serde(default)]
    pub resource_properties: Value,
    /// Those before an update.
    #[serde(default)]
    pub old_resource_properties: Value,
    /// The id by which CloudFormation knows the resource, once it is created.
    physical_resource_id: Option<String>,
    /// The request's own id.
    #[serde(rename = "RequestId")]
    pub id: String,
    /// Whoever has it may answer: it stands in no log.
    #[serde(rename = "ResponseURL")]
    response_url: String,
}

/// Holds what becomes of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RequestType {
    /// It is created.
    Create,
    /// A property of it has changed, or is changed back.
    Update,
    /// It is deleted, also where it could not be created.
    Delete,
}

/// Tells why CloudFormation has no answer.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The address is none.
    #[error("CloudFormation cannot be answered: its request names no address of a host")]
    NoAddress,
    /// It was not taken, however often it was sent.
    #[error("CloudFormation could not be answered")]
    NotTaken(#[source] Box<SdkError<Refused, HttpResponse>>),
}

/// The answer was refused.
#[derive(Debug, Error)]
#[error("the answer was refused with status {0}")]
pub struct Refused(u16);

/// The answer, as CloudFormation takes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    physical_resource_id: &'a str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// Holds what a resource has become: its attributes where it has any, or the reason for which the deployment fails.
pub type Outcome<'a> = Result<Option<&'a Value>, &'a str>;

/// Answers CloudFormation.
#[derive(Debug)]
pub struct Answers {
    http: SharedHttpClient,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            http: aws::http_client(),
        }
    }
}

impl Answers {
    /// Sends what has become of a request.
    ///
    /// It is sent again where the network or S3, which takes it for CloudFormation, fails for a moment.
    ///
    /// # Errors
    /// [`AnswerError`] where it was not taken.
    pub async fn send(&self, request: &Request, outcome: Outcome<'_>) -> Result<(), AnswerError> {
        let (host, path) = split(&request.response_url).ok_or(AnswerError::NoAddress)?;
        let path = path.to_owned();
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT);
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_BACKOFF);
        let operation = Operation::builder()
            .service_name("CloudFormation")
            .operation_name("AnswerRequest")
            .http_client(self.http.clone())
            .endpoint_url(host)
            .no_auth()
            .timeout_config(timeouts.build())
            .standard_retry(&retries)
            .retry_classifier(TransientErrorClassifier::<Refused>::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .serializer(move |body: String| {
                // The signature of the address covers a content type, and that there is none.
                let mut put = HttpRequest::new(SdkBody::from(body));
                put.set_method("PUT")?;
                put.set_uri(path.as_str())?;
                Ok(put)
            })
            .deserializer(|response: &HttpResponse| match response.status() {
                status if status.is_success() => Ok(()),
                status => Err(OrchestratorError::operation(Refused(status.as_u16()))),
            })
            .build();
        let sent = operation.invoke(answer(request, outcome)).await;
        sent.map_err(|error| AnswerError::NotTaken(Box::new(error)))
    }
}

/// Writes the answer; a reason that does not fit is cut.
fn answer(request: &Request, outcome: Outcome<'_>) -> String {
    let answer = |data: Option<&Value>, reason: Option<String>| {
        let physical_resource_id = request.physical_resource_id.as_ref();
        let answer = Answer {
            status: if reason.is_none() { "SUCCESS" } else { "FAILED" },
            reason,
            // The same for good: another would be another resource.
            physical_resource_id: physical_resource_id.unwrap_or(&request.logical_resource_id),
            stack_id: &request.stack_id,
            request_id: &request.id,
            logical_resource_id: &request.logical_resource_id,
            data,
        };
        json!(answer).to_string()
    };
    match outcome {
        Ok(data) => answer(data, None),
        Err(reason) => {
            let room = MAX_ANSWER.saturating_sub(answer(None, Some(String::new())).len());
            answer(None, Some(cut(reason, room)))
        }
    }
}

/// Cuts a text in its middle, for a reason ends with what is accepted, so that it takes so many bytes of JSON at most.
fn cut(text: &str, room: usize) -> String {
    let size = |c: char| json!(c).to_string().len() - 2;
    if text.chars().map(size).sum::<usize>() <= room {
        return text.to_owned();
    }
    let half = room.saturating_sub('…'.len_utf8()) / 2;
    let fitting = |chars: &mut dyn Iterator<Item = char>| -> usize {
        let mut used = 0;
        let fitting = chars.take_while(|c| {
            used += size(*c);
            used <= half
        });
        fitting.map(char::len_utf8).sum()
    };
    let head = fitting(&mut text.chars());
    let tail = fitting(&mut text.chars().rev());
    format!("{}…{}", &text[..head], &text[text.len() - tail..])
}

/// Splits an address into its host, scheme included, and the rest.
fn split(url: &str) -> Option<(&str, &str)> {
    let host = url.find("://")? + "://".len();
    let path = host + url.get(host..)?.find('/')?;
    (path > host).then(|| url.split_at(path))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread::{self, JoinHandle},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::error_text::error_text;

    const PATH: &str = "/arn%3Aaws%3Acloudformation%3Aeu-central-1/x%7Cy?X-Amz-Signature=0f%2B";

    #[tokio::test]
    async fn an_answer_goes_to_the_address_as_it_was_signed_with_no_content_type() {
        let (host, requests) = listen(&[200]);
        let request = request(&format!("{host}{PATH}"), Some("the one"));
        Answers::default()
            .send(&request, Ok(Some(&json!({"Colour": "red"}))))
            .await
            .unwrap();
        let [(head, body)] = requests.join().unwrap().try_into().unwrap();
        assert!(
            head.starts_with(&format!("put {} http/1.1\r\n", PATH.to_lowercase())),
            "{head}"
        );
        assert!(
            head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(!head.contains("content-type") && !head.contains("chunked"), "{head}");
        let expected = json!({
            "Status": "SUCCESS", "PhysicalResourceId": "the one", "StackId": "the stack", "RequestId": "the request",
            "LogicalResourceId": "Checked", "Data": {"Colour": "red"},
        });
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_for_a_moment_is_sent_again() {
        let (host, requests) = listen(&[503, 500, 200]);
        let request = request(&format!("{host}{PATH}"), None);
        Answers::default().send(&request, Err("because")).await.unwrap();
        let bodies: Vec<String> = requests.join().unwrap().into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies.len(), 3);
        let answer: Value = serde_json::from_str(&bodies[2]).unwrap();
        assert_eq!(
            (&answer["Status"], &answer["Reason"]),
            (&json!("FAILED"), &json!("because"))
        );
        assert_eq!(answer["PhysicalResourceId"], "Checked");
    }

    #[tokio::test]
    async fn an_answer_that_is_never_taken_is_an_error_that_does_not_tell_the_address() {
        let (host, _) = listen(&[403]);
        let (gone, nobody) = listen(&[]);
        nobody.join().unwrap();
        for (url, expected) in [
            (format!("{host}{PATH}"), "refused with status 403"),
            (format!("{gone}{PATH}"), "could not be answered"),
            ("nonsense".to_owned(), "names no address"),
            ("https://".to_owned(), "names no address"),
            ("https:///x".to_owned(), "names no address"),
            ("https://a b/x".to_owned(), "could not be answered"),
        ] {
            let error = Answers::default()
                .send(&request(&url, None), Ok(None))
                .await
                .unwrap_err();
            let error = error_text(&error);
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("Signature"), "{error}");
        }
    }

    #[test]
    fn a_reason_that_is_too_long_keeps_its_beginning_and_its_end() {
        let reason = format!("rule gpu: {} is not accepted: it takes a list", "\"ü\"".repeat(2000));
        let answer: Value = serde_json::from_str(&answer(&request("", None), Err(&reason))).unwrap();
        let reason = answer["Reason"].as_str().unwrap();
        assert!(reason.starts_with("rule gpu: \"ü\""), "{reason}");
        assert!(reason.ends_with("is not accepted: it takes a list"), "{reason}");
    }

    proptest! {
        #[test]
        fn an_answer_is_never_longer_than_cloudformation_takes(reason in "(.|[\"\\\\\u{1}üあ]){0,5000}") {
            let answer = answer(&request("", None), Err(&reason));
            prop_assert!(answer.len() <= MAX_ANSWER);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let told = answer["Reason"].as_str().unwrap();
            prop_assert!(told == reason || told.contains('…'));
        }
    }

    fn request(url: &str, id: Option<&str>) -> Request {
        let request = json!({
            "RequestType": "Update", "ResponseURL": url, "StackId": "the stack", "RequestId": "the request",
            "LogicalResourceId": "Checked", "PhysicalResourceId": id,
        });
        serde_json::from_value(request).unwrap()
    }

    /// Answers as many requests, each with a status; returns the host and what will have been received: head and body.
    fn listen(statuses: &'static [u16]) -> (String, JoinHandle<Vec<(String, String)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        let receive = move |status: &u16| {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).unwrap();
            }
            let head = head.to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .unwrap()
                .split('\r')
                .next()
                .unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            (head, String::from_utf8(body).unwrap())
        };
        (host, thread::spawn(move || statuses.iter().map(receive).collect()))
    }
}
