//! The page the process key lies in: out of reach of swap, core dumps, other processes and, where the kernel can, of the
//! kernel itself.
//!
//! Three kinds: `memfd_secret` (Linux 5.14), a locked page, and plain memory for tests, simulations and operators who allow
//! it. The last needs no system call, so what uses it can run under Miri (unverified: Miri was not at hand).

#![expect(unsafe_code, reason = "pages are asked of the kernel and named by address")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};

use super::process_key::Protection;
use super::scrub::erase;

/// Readable and writable memory of this process alone. Overwritten before it is given back.
pub(super) struct Page {
    memory: NonNull<u8>,
    size: usize,
    kind: Protection,
}

// SAFETY: the memory belongs to this value alone, and is handed out by the rules of references.
unsafe impl Send for Page {}
// SAFETY: as above; there is no way to write through a shared reference.
unsafe impl Sync for Page {}

impl Page {
    /// A page that only this process can reach: the kernel takes it out of its own map of the memory.
    pub(super) fn secret() -> io::Result<Self> {
        let size = page_size()?;
        // SAFETY: the call takes flags and returns a descriptor or -1.
        let raw = checked(unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) })?;
        let raw = i32::try_from(raw).map_err(io::Error::other)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let file = unsafe { OwnedFd::from_raw_fd(raw) };
        let length = libc::off_t::try_from(size).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open.
        checked(unsafe { libc::ftruncate(file.as_raw_fd(), length) }.into())?;
        let page = Self::map(size, libc::MAP_SHARED, file.as_raw_fd(), Protection::SecretMemory)?;
        page.advise(libc::MADV_DONTFORK)?;
        Ok(page)
    }

    /// A page that is never swapped, dumped or inherited.
    pub(super) fn locked() -> io::Result<Self> {
        let page = Self::map(page_size()?, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, Protection::LockedMemory)?;
        // SAFETY: the page is ours and mapped.
        checked(unsafe { libc::mlock(page.memory.as_ptr().cast(), page.size) }.into())?;
        page.advise(libc::MADV_DONTDUMP)?;
        page.advise(libc::MADV_WIPEONFORK)?;
        Ok(page)
    }

    /// Memory like any other.
    pub(super) fn plain(size: usize) -> Self {
        let memory = Box::into_raw(vec![0_u8; size].into_boxed_slice());
        let memory = NonNull::new(memory.cast()).expect("a box is somewhere");
        Self { memory, size, kind: Protection::Plain }
    }

    /// What it is.
    pub(super) fn kind(&self) -> Protection {
        self.kind
    }

    /// Its bytes, zero at first.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped or allocated with this size, initialised, and ours until dropped.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.size) }
    }

    /// Its bytes, for writing.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the exclusive reference to the page is the one to its bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.size) }
    }

    fn map(size: usize, flags: libc::c_int, file: libc::c_int, kind: Protection) -> io::Result<Self> {
        // SAFETY: a new mapping wherever the kernel likes; it touches no other memory.
        let memory = unsafe { libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { memory, size, kind })
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the page is ours and mapped; none of the advice given here takes its content from this process.
        checked(unsafe { libc::madvise(self.memory.as_ptr().cast(), self.size, advice) }.into()).map(|_| ())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the page is ours, and this is the last use of its content.
        unsafe { erase(self.memory.as_ptr(), self.size) };
        match self.kind {
            Protection::SecretMemory | Protection::LockedMemory => {
                // SAFETY: mapped with this size; no reference outlives the value.
                unsafe { libc::munmap(self.memory.as_ptr().cast(), self.size) };
            }
            Protection::Plain => {
                let memory = std::ptr::slice_from_raw_parts_mut(self.memory.as_ptr(), self.size);
                // SAFETY: it came from a box of this size.
                drop(unsafe { Box::from_raw(memory) });
            }
        }
    }
}

fn page_size() -> io::Result<usize> {
    // SAFETY: asks for a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_err(io::Error::other)
}

/// The result of a system call, or its error.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
