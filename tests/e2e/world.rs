//! What a test has around it: a directory, ports, certificates and a runtime.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The domain of the PBX. Like [`EDGE_DOMAIN`] it resolves nowhere: everything is reached by address.
pub(crate) const PBX_DOMAIN: &str = "pbx.test";

/// The domain of the daemon's edge.
pub(crate) const EDGE_DOMAIN: &str = "edge.test";

/// The transports of SIP that every peer here speaks; SIPp, which has no TLS, stays on UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// As in a URI's `transport` parameter and in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Everything a test shares among its peers. Drop it last.
pub(crate) struct World {
    name: String,
    directory: PathBuf,
    sockets: TempDir,
    /// For what is asynchronous: HTTP and the stand-ins of the push services.
    pub(crate) runtime: Runtime,
}

impl World {
    /// Makes the surroundings of the test called `name`, which must be its own.
    pub(crate) fn new(name: &str) -> Self {
        let directory = target_directory().join("e2e").join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("the target directory is writable");
        write_certificates(&directory);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self {
            name: name.to_owned(),
            directory,
            sockets: TempDir::new().expect("the directory for temporary files is writable"),
            runtime: runtime.expect("a runtime needs only threads"),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A directory for one peer.
    pub(crate) fn directory_of(&self, peer: &str) -> PathBuf {
        let directory = self.directory.join(peer);
        fs::create_dir_all(&directory).expect("the test directory is writable");
        directory
    }

    /// Where Unix sockets go: a socket's path has room for 107 bytes, and a target directory can be deep.
    pub(crate) fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// The certificate that all peers trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The certificate of every server in this test.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.join("server.key")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the peers wrote: {}", self.directory.display());
        }
    }
}

/// Where Cargo builds, wherever that is.
pub(crate) fn target_directory() -> PathBuf {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    own.parent().expect("Cargo's directory for tests lies in its target directory").to_owned()
}

/// The first of ten ports on 127.0.0.1 that nobody uses, neither with UDP nor with TCP.
///
/// Not port 0: most peers here must be told a number. The numbers lie below the range from which the kernel takes ports
/// for outgoing connections, so none is taken between choosing and binding; nor by tests of another process, as every
/// process takes regions that no other has.
pub(crate) fn free_port() -> u16 {
    static OWN: Mutex<Regions> = Mutex::new(Regions { claims: Vec::new(), blocks: 0 });
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..REGIONS * BLOCKS {
        let first = own.next_block();
        if (first..first + BLOCK).all(is_free) {
            return first;
        }
    }
    panic!("no free port on 127.0.0.1");
}

/// Ports of one region: the first one is its claim, which no peer uses, and the others are blocks.
const REGION: u16 = 1_000;
const REGIONS: u16 = 20;
const FIRST_REGION: u16 = 11_000;
const BLOCK: u16 = 10;
const BLOCKS: u16 = REGION / BLOCK - 1;

/// The regions of this process.
struct Regions {
    /// The sockets that hold them; they end with the process.
    claims: Vec<UdpSocket>,
    /// Blocks handed out so far.
    blocks: u16,
}

impl Regions {
    /// The first port of the next block: of a region that is claimed for it or, when there is none left, of the first again.
    fn next_block(&mut self) -> u16 {
        let mut turn = usize::from(self.blocks / BLOCKS);
        if turn == self.claims.len() {
            let free = |number| UdpSocket::bind((Ipv4Addr::LOCALHOST, FIRST_REGION + number * REGION)).ok();
            match (0..REGIONS).find_map(free) {
                Some(claim) => self.claims.push(claim),
                None => (self.blocks, turn) = (0, 0),
            }
        }
        let claim = self.claims.get(turn).expect("20 processes with such tests do not run at once");
        let region = claim.local_addr().expect("it is bound").port();
        let block = self.blocks % BLOCKS + 1;
        self.blocks += 1;
        region + block * BLOCK
    }
}

fn is_free(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
}

/// One authority for a test and one certificate that all its servers show.
///
/// ECDSA with P-256, since the OpenSSL inside the PJSIP wheel is 1.0.2 and knows neither Ed25519 nor TLS 1.3.
fn write_certificates(directory: &Path) {
    let ca_key = KeyPair::generate().expect("P-256 is always there");
    let ca = {
        let mut params = named("Outside test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let ca_certificate = ca.self_signed(&ca_key).expect("the parameters are complete");
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect("P-256 is always there");
    let mut params = named(EDGE_DOMAIN);
    let names = CertificateParams::new(["127.0.0.1", "localhost", EDGE_DOMAIN, PBX_DOMAIN].map(String::from));
    params.subject_alt_names = names.expect("the names are plain").subject_alt_names;
    let certificate = params.signed_by(&key, &issuer).expect("the parameters are complete");

    let write = |name: &str, text: String| fs::write(directory.join(name), text).expect("the directory is writable");
    write("ca.pem", ca_certificate.pem());
    write("server.pem", certificate.pem());
    write("server.key", key.serialize_pem());
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}
