//! Writing a blob into containerd's store (api/services/content/v1/content.proto, `Write`).

use std::{collections::BTreeMap, error::Error};

use bytes::Bytes;
use futures_util::stream;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming, metadata::MetadataValue};

use super::{
    client::{Containerd, decode, request, unless_gone},
    raw::Raw,
};

/// Bounds the pieces that are on their way to containerd at once.
const AHEAD: usize = 4;
/// Names the actions of a request (WriteAction).
const STAT: i32 = 0;
const WRITE: i32 = 1;
const COMMIT: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    reference: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
    #[prost(btree_map = "string, string", tag = "7")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WriteResponse {
    #[prost(int64, tag = "4")]
    offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AbortRequest {
    #[prost(string, tag = "1")]
    reference: String,
}

/// Tells what became of a request to write a blob.
#[derive(Debug)]
pub enum Opened {
    /// It may be written, from where it was left.
    Writer(Box<Writer>),
    /// It is there; the lease holds it from now on.
    There,
    /// Somebody else is writing it.
    Busy,
}

/// A blob that is being written. What is there of it stays where the writer goes, as long as its lease holds.
#[derive(Debug)]
pub struct Writer {
    requests: mpsc::Sender<Vec<u8>>,
    answers: Streaming<Bytes>,
    unanswered: usize,
    reference: String,
    digest: String,
    total: u64,
    offset: u64,
}

impl Containerd {
    /// Opens a blob for writing, under the name that containerd itself gives to a layer: it goes on where that was left, and
    /// the other way round.
    ///
    /// # Errors
    /// containerd's.
    pub async fn write_layer(&self, digest: &str, total: u64, lease: &str) -> Result<Opened, Status> {
        let (requests, receiver) = mpsc::channel::<Vec<u8>>(AHEAD);
        let reference = format!("layer-{digest}");
        requests
            .try_send(stat(&reference, digest, total))
            .map_err(|_| Status::internal("a channel without room"))?;
        match self.open_stream(receiver, lease).await {
            Ok((answers, WriteResponse { offset })) => Ok(Opened::Writer(Box::new(Writer {
                requests,
                answers,
                unanswered: 0,
                reference,
                digest: digest.to_owned(),
                total,
                offset: u64::try_from(offset).unwrap_or_default(),
            }))),
            Err(status) if status.code() == Code::AlreadyExists => Ok(Opened::There),
            Err(status) if status.code() == Code::Unavailable && status.source().is_none() => Ok(Opened::Busy),
            Err(status) => Err(status),
        }
    }

    /// Opens the stream of requests and answers, and returns it with the first answer.
    async fn open_stream(
        &self,
        receiver: mpsc::Receiver<Vec<u8>>,
        lease: &str,
    ) -> Result<(Streaming<Bytes>, WriteResponse), Status> {
        let sent = stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        let mut request = request(WRITE_METHOD, sent);
        let lease = MetadataValue::try_from(lease).map_err(|_| Status::invalid_argument("no name of a lease"))?;
        request.metadata_mut().insert("containerd-lease", lease);
        let mut client = self.client().await?;
        let path = PathAndQuery::from_static(WRITE_METHOD);
        let mut answers = Box::pin(client.streaming(request, path, Raw)).await?.into_inner();
        let answer = next(&mut answers).await?;
        Ok((answers, answer))
    }

    /// Removes what is there of a blob that was not written to its end.
    ///
    /// # Errors
    /// containerd's.
    pub async fn abort_layer(&self, digest: &str) -> Result<(), Status> {
        let reference = format!("layer-{digest}");
        unless_gone(
            self.ask(
                "/containerd.services.content.v1.Content/Abort",
                AbortRequest { reference },
            )
            .await,
        )
    }
}

const WRITE_METHOD: &str = "/containerd.services.content.v1.Content/Write";

impl Writer {
    /// Returns how many bytes are there.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes what comes next: less than the 16 MiB that containerd takes in one message (`grpc.max_recv_message_size`).
    ///
    /// # Errors
    /// containerd's.
    pub async fn write(&mut self, data: Vec<u8>) -> Result<(), Status> {
        let bytes = data.len() as u64;
        let request = self.request(WRITE, data);
        self.offset += bytes;
        self.send(request).await?;
        self.answered(AHEAD - 1).await.map(drop)
    }

    /// Returns once containerd has taken in all that was written; what is under way when the writer goes is lost.
    ///
    /// # Errors
    /// containerd's.
    pub async fn flush(&mut self) -> Result<(), Status> {
        self.answered(0).await
    }

    /// Ends the blob, which containerd then verifies against its digest. One that somebody else has written meanwhile is there.
    ///
    /// # Errors
    /// containerd's; `FailedPrecondition` where it is something else.
    pub async fn commit(mut self: Box<Self>) -> Result<(), Status> {
        let request = self.request(COMMIT, Vec::new());
        self.send(request).await?;
        match self.answered(0).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    fn request(&self, action: i32, data: Vec<u8>) -> Vec<u8> {
        let request = WriteRequest {
            action,
            reference: self.reference.clone(),
            total: signed(self.total),
            expected: self.digest.clone(),
            offset: signed(self.offset),
            data,
            labels: BTreeMap::new(),
        };
        request.encode_to_vec()
    }

    async fn send(&mut self, request: Vec<u8>) -> Result<(), Status> {
        if self.requests.send(request).await.is_err() {
            return Err(match self.answers.message().await {
                Err(status) => status,
                Ok(_) => Status::aborted("containerd takes no more of a blob"),
            });
        }
        self.unanswered += 1;
        Ok(())
    }

    /// Waits until no more than so many requests have no answer.
    async fn answered(&mut self, at_most: usize) -> Result<(), Status> {
        while self.unanswered > at_most {
            next(&mut self.answers).await?;
            self.unanswered -= 1;
        }
        Ok(())
    }
}

/// Returns the request that asks how much of a blob is there.
fn stat(reference: &str, digest: &str, total: u64) -> Vec<u8> {
    let request = WriteRequest {
        action: STAT,
        reference: reference.to_owned(),
        total: signed(total),
        expected: digest.to_owned(),
        ..WriteRequest::default()
    };
    request.encode_to_vec()
}

async fn next(answers: &mut Streaming<Bytes>) -> Result<WriteResponse, Status> {
    match answers.message().await? {
        Some(answer) => decode(answer),
        None => Err(Status::aborted("containerd ends the writing of a blob")),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
