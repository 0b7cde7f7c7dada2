//! The process key at start: made once, told to the operator, given to every shard's vault.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::StartError;
use crate::config;
use crate::telemetry::{Meters, Readiness};
use crate::vault::{ProcessKey, Protection, Vault};

/// Stands in `/readyz` where the key's page may be dumped or swapped out.
const PLAIN_NOTE: &str = "the vault's key lies in plain memory (vault.allow_plain_memory)";
/// Stands in `/readyz` while the debug switch is on.
const COPY_NOTE: &str = "a plain copy of every password is kept (vault.keep_a_copy): not for service";

/// What every vault of this process is made with.
pub(super) struct Secrets {
    key: Arc<ProcessKey>,
    keep_a_copy: bool,
}

impl Secrets {
    /// Makes the process key; before any thread is started.
    pub(super) fn new(settings: &config::Vault) -> Result<Self, StartError> {
        let made = ProcessKey::new(settings.allow_plain_memory);
        let (key, protection) = made.map_err(|error| StartError::Unavailable(error.to_string()))?;
        let why = key.shortfall().unwrap_or_default();
        match protection {
            Protection::SecretMemory => info!(kind = protection.as_str(), "the vault's key has a page of its own"),
            Protection::LockedMemory => {
                info!(
                    kind = protection.as_str(),
                    why, "the vault's key has a locked page; the kernel has no secret memory"
                );
            }
            Protection::Plain => {
                warn!(
                    kind = protection.as_str(),
                    why, "the vault's key lies in memory that can be swapped out and dumped"
                );
            }
        }
        if settings.keep_a_copy {
            error!("vault.keep_a_copy is on: a plain copy of every password is kept. Never in service");
        }
        Ok(Self { key, keep_a_copy: settings.keep_a_copy })
    }

    /// The key, for what else must mean nothing outside of this process.
    pub(super) fn key(&self) -> Arc<ProcessKey> {
        Arc::clone(&self.key)
    }

    /// An empty vault for one shard.
    pub(super) fn vault(&self) -> Vault {
        let mut vault = Vault::new(Arc::clone(&self.key));
        if self.keep_a_copy {
            vault.dangerously_keep_copies();
        }
        vault
    }

    /// Says in metrics and `/readyz` how the key is kept.
    pub(super) fn tell(&self, meters: &Meters, readiness: &Readiness) {
        meters.publish_secret_memory(self.key.protection());
        readiness.note(PLAIN_NOTE, self.key.protection() == Protection::Plain);
        readiness.note(COPY_NOTE, self.keep_a_copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_key_is_told() {
        let (meters, readiness) = (Meters::new(&[]), Readiness::new());
        let settings = config::Vault { allow_plain_memory: false, keep_a_copy: false };
        let secrets = Secrets::new(&settings).expect("this kernel protects memory");
        secrets.tell(&meters, &readiness);
        let kind = secrets.key.protection().as_str();
        assert!(meters.render().contains(&format!("reveille_secret_memory{{kind=\"{kind}\"}} 1")));
        assert!(readiness.state().notes.is_empty());
    }

    #[test]
    fn a_key_in_plain_memory_and_copies_of_passwords_are_noted() {
        let (meters, readiness) = (Meters::new(&[]), Readiness::new());
        let secrets = Secrets { key: ProcessKey::plain(), keep_a_copy: true };
        secrets.tell(&meters, &readiness);
        assert!(meters.render().contains("reveille_secret_memory{kind=\"plain\"} 1"));
        assert_eq!(readiness.state().notes.into_iter().collect::<Vec<_>>(), [COPY_NOTE, PLAIN_NOTE]);
    }
}
