//! A connection to containerd, and the messages that its services share.

use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::net::UnixStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::raw::Raw;

/// Names containerd's socket, a path of the host.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// Names the namespace in which CRI keeps its images.
const NAMESPACE: &str = "k8s.io";
/// Bounds the time of one question.
pub const LOOK_UP: Duration = Duration::from_secs(30);
/// Bounds the answer that is read, in bytes: containerd itself sends no message above 16 MiB (`grpc.max_send_message_size`), and
/// a list of blobs comes in many.
const MAX_ANSWER: usize = 64 << 20;
/// Bounds the path of a socket, in bytes (unix(7), `sun_path`).
const MAX_SOCKET_PATH: usize = 107;

/// A connection to containerd, or to another server of CRI's image service; cheap to clone.
///
/// It is made when it is needed, and made anew where containerd was started anew. Each call has a time limit of its own
/// (`LOOK_UP`, but for a pull) and ends when its future is dropped.
#[derive(Clone, Debug)]
pub struct Containerd {
    channel: Channel,
}

impl Containerd {
    /// Names the socket; nothing is asked yet. It wants a runtime around it.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| connect(socket.clone()));
        Self {
            channel: Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector),
        }
    }

    /// Asks for one answer, within `LOOK_UP`.
    pub(super) async fn ask<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: Q,
    ) -> Result<A, Status> {
        let answer = within(LOOK_UP, self.call_raw(method, question.encode_to_vec())).await?;
        decode(answer)
    }

    /// Asks for one answer, without a limit of time.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: Q,
    ) -> Result<A, Status> {
        decode(self.call_raw(method, question.encode_to_vec()).await?)
    }

    /// Asks for an answer in parts, and returns all of them, within `LOOK_UP`.
    pub(super) async fn list<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: Q,
    ) -> Result<Vec<A>, Status> {
        let parts = within(LOOK_UP, self.list_raw(method, question.encode_to_vec())).await?;
        parts.into_iter().map(decode).collect()
    }

    fn call_raw(&self, method: &'static str, question: Vec<u8>) -> Call<'_, Bytes> {
        Box::pin(async move {
            let mut client = self.client().await?;
            let path = PathAndQuery::from_static(method);
            Ok(client.unary(request(method, question), path, Raw).await?.into_inner())
        })
    }

    fn list_raw(&self, method: &'static str, question: Vec<u8>) -> Call<'_, Vec<Bytes>> {
        Box::pin(async move {
            let mut client = self.client().await?;
            let path = PathAndQuery::from_static(method);
            let answer = client.server_streaming(request(method, question), path, Raw);
            all(answer.await?.into_inner()).await
        })
    }

    pub(super) async fn client(&self) -> Result<Grpc<Channel>, Status> {
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(client)
    }
}

/// A call that goes on. It is some 10 KB large, and so are not those who make it.
type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + 'a>>;

async fn within<T>(limit: Duration, call: Call<'_, T>) -> Result<T, Status> {
    let seconds = limit.as_secs();
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {seconds} seconds"))))
}

async fn all(mut stream: Streaming<Bytes>) -> Result<Vec<Bytes>, Status> {
    let (mut parts, mut bytes) = (Vec::new(), 0);
    while let Some(part) = stream.message().await? {
        bytes += part.len();
        if bytes > MAX_ANSWER {
            return Err(Status::out_of_range(format!("an answer above {MAX_ANSWER} bytes")));
        }
        parts.push(part);
    }
    Ok(parts)
}

pub(super) fn decode<A: Message + Default>(answer: Bytes) -> Result<A, Status> {
    A::decode(answer).map_err(|error| Status::internal(format!("an answer that cannot be read: {error}")))
}

/// Adds the namespace, which containerd's own services want to be told.
pub(super) fn request<Q>(method: &str, question: Q) -> Request<Q> {
    let mut request = Request::new(question);
    if method.starts_with("/containerd.") {
        let namespace = MetadataValue::from_static(NAMESPACE);
        request.metadata_mut().insert("containerd-namespace", namespace);
    }
    request
}

/// Connects to a socket, also to one whose path is too long for the call: by its folder's descriptor.
async fn connect(socket: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(TokioIo::new(UnixStream::connect(&socket).await?));
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let folder = openat(CWD, folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok(TokioIo::new(UnixStream::connect(path).await?))
}

/// A moment, as protobuf has it (google.protobuf.Timestamp).
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Timestamp {
    pub(super) fn moment(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.seconds, u32::try_from(self.nanos).ok()?)
    }
}

/// Tells which fields of a message are meant (google.protobuf.FieldMask).
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    pub(super) paths: Vec<String>,
}

/// An answer of which nothing is wanted.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Nothing {}

/// Takes "there is none" for done.
pub(super) fn unless_gone(answer: Result<Nothing, Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() != tonic::Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_reached_by_a_path_of_any_length() {
        let folder = std::env::temp_dir().join(format!("{}-{}", std::process::id(), "x".repeat(120)));
        std::fs::create_dir_all(&folder).expect("a folder");
        let socket = folder.join("containerd.sock");
        let near = std::env::temp_dir().join(format!("{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&near).expect("a socket");
        std::fs::rename(&near, &socket).expect("the same file system");
        let accepted = std::thread::spawn(move || listener.accept().expect("a connection").0.read(&mut [0; 1]));
        let connection = connect(socket).await;
        std::fs::remove_dir_all(&folder).expect("the folder");
        assert!(connection.is_ok(), "{connection:?}");
        drop(connection);
        assert_eq!(accepted.join().expect("no panic").expect("the end"), 0);
    }

    #[tokio::test]
    async fn nobody_behind_the_socket_is_unavailable() {
        let containerd = Containerd::at(Path::new("/nowhere/containerd.sock"));
        let status = containerd.names(&[]).await.expect_err("nobody is there");
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    }

    #[test]
    fn a_moment_that_is_none_is_none() {
        let far = Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        };
        assert_eq!(far.moment(), None);
    }
}
