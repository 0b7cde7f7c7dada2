//! Landlock: which files may still be opened.
//!
//! Best effort over the versions of the kernel: each version of the interface adds rights that can be taken away, and the
//! log says which version holds. Connecting and binding are left alone: a relay connects wherever its users' registrars
//! are.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

/// The rights of this version are taken away, as far as the kernel knows them. The next one is about connecting to Unix
/// sockets, which the service manager's must stay open to.
const NEWEST: ABI = ABI::V8;

/// What may still be opened. Directories with all that is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// To read.
    pub read: Vec<PathBuf>,
    /// To read, write, make, rename and remove files in.
    pub write: Vec<PathBuf>,
    /// Whether abstract Unix sockets of others may be connected to, as some service managers want.
    pub abstract_sockets: bool,
}

/// The directory that `file` stands in.
pub(super) fn directory_of(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

/// Takes everything else away from this thread and those it starts.
pub(super) fn restrict(files: &Files) -> Result<String, String> {
    let status = ruleset(files).map_err(|error| error.to_string())?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(match status.landlock {
            LandlockStatus::NotEnabled => {
                "Landlock is switched off at boot: add it to the kernel's lsm= list".to_owned()
            }
            _ => "the kernel has no Landlock (it came with Linux 5.13), or a filter hides it".to_owned(),
        });
    }
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => kernel_abi.unwrap_or(effective_abi as i32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    Ok(format!("ABI {abi}: {} directories to read, {} to write", files.read.len(), files.write.len()))
}

fn ruleset(files: &Files) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.scope(Scope::Signal)?;
    if !files.abstract_sockets {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    ruleset
        .create()?
        .add_rules(path_beneath_rules(&files.read, reading()))?
        .add_rules(path_beneath_rules(&files.write, reading() | writing()))?
        .restrict_self()
}

fn reading() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// A rename takes the right to remove the old name and to make the new one.
fn writing() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile})
}
