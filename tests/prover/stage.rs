//! What surrounds the daemons: PBXs that challenge in every way, a mailbox for pushes, and everybody's secrets.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reveille::sandbox::mailbox::{Mailbox, MailboxOptions};
use reveille::sandbox::registrar::{AccountPlan, Registrar, RegistrarPlan};
use reveille::sip::auth::Algorithm;

use crate::needles::Needles;
use crate::secrets::Secret;
use crate::world::{World, free_port};

/// How each PBX challenges: its realm, its algorithms as it offers them, and how long its nonces live.
const CHALLENGES: [(&str, &[Algorithm], Duration); PBXS] = [
    ("md5.pbx.test", &[Algorithm::Md5], Duration::from_secs(3600)),
    ("sha-256.pbx.test", &[Algorithm::Sha256, Algorithm::Md5], Duration::from_secs(1)),
    ("all.pbx.test", &[Algorithm::Sha512256, Algorithm::Sha256, Algorithm::Md5], Duration::from_secs(3600)),
];

/// Every part of the run has an account at each.
pub(crate) const PBXS: usize = 3;

/// What the PBXs grant at most, so that there are refreshes to see: the first comes after 15 s, however little is granted, and is in time.
const EXPIRES: Duration = Duration::from_secs(20);

/// Everything but the daemons.
pub(crate) struct Stage {
    /// The daemon's.
    pub(crate) binary: PathBuf,
    pub(crate) world: World,
    pub(crate) pbxs: Vec<Registrar>,
    pub(crate) mailbox: Mailbox,
    /// Everybody's, by number; the PBX of an account is its number modulo [`PBXS`].
    pub(crate) secrets: Vec<Secret>,
    pub(crate) needles: Needles,
    /// A registrar that hears and never answers.
    pub(crate) silent: UdpSocket,
    /// A port where nobody is.
    pub(crate) nobody: u16,
}

impl Stage {
    /// Builds it, with so many accounts.
    pub(crate) fn build(binary: PathBuf, accounts: usize) -> anyhow::Result<Self> {
        let world = World::new("prove-erasure");
        let secrets: Vec<Secret> = (0..accounts)
            .map(|number| {
                let (realm, algorithms, _) = CHALLENGES[number % PBXS];
                Secret::fresh(&format!("user{number}"), &[(realm, algorithms)])
            })
            .collect();
        let mut pbxs = Vec::new();
        for (place, (realm, algorithms, nonce_life)) in CHALLENGES.into_iter().enumerate() {
            let own = secrets.iter().skip(place).step_by(PBXS);
            let account =
                |secret: &Secret| AccountPlan { user: secret.user.clone(), password: secret.password.clone().into() };
            let plan = RegistrarPlan {
                realm: realm.to_owned(),
                accounts: own.map(account).collect(),
                algorithms: algorithms.to_vec(),
                expires_max: EXPIRES,
                nonce_life,
                ..RegistrarPlan::loopback("", "")
            };
            pbxs.push(world.runtime.block_on(Registrar::start(plan))?);
        }
        let options = MailboxOptions { address: SocketAddr::from(([127, 0, 0, 1], 0)), tls: false, observer: None };
        let mailbox = world.runtime.block_on(Mailbox::start(options))?;
        let needles = Needles::new(&secrets);
        let silent = UdpSocket::bind("127.0.0.1:0")?;
        let nobody = free_port();
        Ok(Self { binary, world, pbxs, mailbox, secrets, needles, silent, nobody })
    }

    pub(crate) fn pbx_of(&self, account: usize) -> &Registrar {
        &self.pbxs[account % PBXS]
    }

    /// Where an account registers: over UDP, TCP and UDP.
    pub(crate) fn registrar_uri(&self, account: usize) -> String {
        let transport = if account % PBXS == 1 { "tcp" } else { "udp" };
        format!("sip:{};transport={transport}", self.pbx_of(account).address())
    }

    /// How an account's PBX challenges: realm and strongest algorithm.
    pub(crate) fn challenge_of(account: usize) -> (&'static str, Algorithm) {
        let (realm, algorithms, _) = CHALLENGES[account % PBXS];
        (realm, algorithms[0])
    }

    /// Every port at which a daemon may register.
    pub(crate) fn ports(&self) -> anyhow::Result<Vec<u16>> {
        let mut ports: Vec<u16> = self.pbxs.iter().map(|pbx| pbx.address().port()).collect();
        ports.extend([self.silent.local_addr()?.port(), self.nobody]);
        Ok(ports)
    }
}

/// So that a stage can be shared with the threads of slow clients.
pub(crate) type Shared = Arc<Stage>;
