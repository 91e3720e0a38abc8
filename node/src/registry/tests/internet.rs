//! Hosts of any name behind a proxy, and one without TLS on the machine itself, for tests.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::{host::Folder, registry::Registries};

/// Names the hosts that the certificate is for.
const NAMES: [&str; 4] = ["reg.example", "mirror.example", "auth.example", "bucket.example"];

/// A request that a host was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    pub method: String,
    pub host: String,
    pub target: String,
    pub authorization: String,
    pub other: String,
}

/// Tells what a host does with a request.
pub enum Does {
    /// Answers: status, headers, body.
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Answers without an end.
    NeverEnd,
    /// Answers nothing.
    Nothing,
}

type Behaviour = Arc<dyn Fn(&Received) -> Does + Send + Sync>;

struct Shared {
    behaviour: Behaviour,
    received: Mutex<Vec<Received>>,
    tunnels: Mutex<Vec<String>>,
    connections: AtomicUsize,
    tls: TlsAcceptor,
}

/// The hosts, and the node that asks them.
pub struct Internet {
    shared: Arc<Shared>,
    pub folder: Folder,
    /// The machine's own port, without TLS.
    pub port: u16,
}

pub fn says(status: u16, body: impl Into<Vec<u8>>) -> Does {
    Does::Say(status, Vec::new(), body.into())
}

impl Internet {
    /// Starts the hosts; the node trusts them, and knows the proxy by kubelet's unit.
    pub async fn start(behaviour: impl Fn(&Received) -> Does + Send + Sync + 'static) -> Self {
        let (authority, tls) = certificates();
        let shared = Arc::new(Shared {
            behaviour: Arc::new(behaviour),
            received: Mutex::default(),
            tunnels: Mutex::default(),
            connections: AtomicUsize::new(0),
            tls,
        });
        let proxy = listen(&shared, |stream, shared| Box::pin(serve_tunnel(stream, shared))).await;
        let port = listen(&shared, |stream, shared| {
            Box::pin(async move { serve(BufReader::new(stream), &shared).await })
        });
        let drop_in = format!("[Service]\nEnvironment=\"HTTPS_PROXY=http://user:pass@127.0.0.1:{proxy}\"\n");
        Self {
            port: port.await,
            folder: Folder::new()
                .with("etc/pki/tls/certs/ca-bundle.crt", &authority)
                .with("etc/systemd/system/kubelet.service.d/proxy.conf", &drop_in),
            shared,
        }
    }

    /// Writes a file of the node.
    pub fn with(mut self, file: &str, text: &str) -> Self {
        self.folder = self.folder.with(file, &text.replace("PORT", &self.port.to_string()));
        self
    }

    pub fn registries(&self) -> Registries {
        Registries::on(&self.folder.host(), vec!["/certs.d".into()])
    }

    /// Returns what was asked until now.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Returns who was asked by which login.
    pub fn logins(&self) -> Vec<(String, String)> {
        self.received()
            .into_iter()
            .map(|request| (request.host, request.authorization))
            .collect()
    }

    /// Returns where tunnels led to.
    pub fn tunnels(&self) -> Vec<String> {
        self.shared.tunnels.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

/// Makes a certificate for the hosts, and the one that signed it.
fn certificates() -> (String, TlsAcceptor) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(NAMES.map(str::to_owned))
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let acceptor = acceptor(certificate.der().clone(), key.serialize_der());
    (authority.pem(), acceptor)
}

/// Makes a certificate that a host signed for itself.
pub fn self_signed() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let acceptor = acceptor(certificate.der().clone(), key.serialize_der());
    (certificate.pem(), acceptor)
}

fn acceptor(certificate: rustls::pki_types::CertificateDer<'static>, key: Vec<u8>) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key).unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

type Serving = std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

async fn listen(shared: &Arc<Shared>, serve: fn(TcpStream, Arc<Shared>) -> Serving) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    });
    port
}

/// Serves one answer by TLS on the machine itself, and returns its port.
pub async fn serve_by_tls(tls: TlsAcceptor, body: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = tls.accept(stream).await else { continue };
            let mut stream = BufReader::new(stream);
            if matches!(read_request(&mut stream).await, Ok(Some(_))) {
                write_answer(stream.get_mut(), says(200, body)).await.unwrap();
            }
        }
    });
    port
}

async fn serve_tunnel(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let Some(tunnel) = read_request(&mut stream).await? else {
        return Ok(());
    };
    shared
        .tunnels
        .lock()
        .unwrap()
        .push(format!("{} {} {}", tunnel.method, tunnel.target, tunnel.other));
    let mut stream = stream.into_inner();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    serve(BufReader::new(shared.tls.accept(stream).await?), &shared).await
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: BufReader<S>, shared: &Shared) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream).await? {
        shared.received.lock().unwrap().push(request.clone());
        write_answer(stream.get_mut(), (shared.behaviour)(&request)).await?;
    }
    Ok(())
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<Option<Received>> {
    let mut request = Received::default();
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        match text.split_once(": ") {
            None if text.is_empty() => return Ok(Some(request)),
            None => {
                let mut words = text.split(' ').map(str::to_owned);
                request.method = words.next().unwrap_or_default();
                request.target = words.next().unwrap_or_default();
            }
            Some((name, value)) => match name.to_lowercase().as_str() {
                "host" => value.clone_into(&mut request.host),
                "authorization" => value.clone_into(&mut request.authorization),
                "x-other" | "proxy-authorization" => value.clone_into(&mut request.other),
                _ => {}
            },
        }
    }
}

async fn write_answer<S: AsyncWrite + Unpin>(stream: &mut S, does: Does) -> io::Result<()> {
    match does {
        Does::Nothing => std::future::pending().await,
        Does::NeverEnd => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await?;
            loop {
                stream.write_all(b"1000\r\n").await?;
                stream.write_all(&[b'x'; 0x1000]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Does::Say(status, headers, body) => {
            let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
            let headers: String = headers.collect();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}", body.len());
            stream.write_all(format!("{head}\r\n").as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.flush().await
        }
    }
}
