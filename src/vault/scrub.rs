//! Overwriting what nobody will read any more, so that the compiler cannot leave it out: memory, and the stack below.
//!
//! Computing with a secret leaves pieces of it in the frames of the functions that computed: a hash function's block, the
//! round keys of a cipher. [`scrubbed`] runs such work in frames of its own and overwrites them afterwards. Registers are
//! not overwritten: the next computation does that.

#![expect(unsafe_code, reason = "only raw writes reach memory that has no name any more")]

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::pin;

/// How far down the stack is overwritten after work with a secret: several times what a lend was seen to use, in a build
/// without optimisation too.
const DEPTH: usize = 16 * 1024;

/// The same for a task of the shell, which has the frames of TLS, HTTP and JSON below it.
const DEPTH_OF_TASKS: usize = 96 * 1024;

/// Runs `work` and overwrites the stack it ran on, even if it panics.
///
/// The stack's frames are what is reached: neither what `work` returns nor what it put elsewhere.
pub(super) fn scrubbed<R>(work: impl FnOnce() -> R) -> R {
    let _after = Scrub::<DEPTH>;
    below(work)
}

/// Drives a future and overwrites the stack beneath it whenever it has been polled: for tasks through whose hands secrets
/// go unopened.
pub async fn scrubbed_task<F: Future>(task: F) -> F::Output {
    let mut task = pin!(task);
    poll_fn(move |context| {
        let _after = Scrub::<DEPTH_OF_TASKS>;
        below(|| task.as_mut().poll(context))
    })
    .await
}

/// Overwrites `size` bytes.
///
/// # Safety
/// They are the caller's to write, and hold no value that is still needed.
pub(super) unsafe fn erase(memory: *mut u8, size: usize) {
    // SAFETY: as promised by the caller.
    unsafe { memory.write_bytes(0, size) };
    looked_at(memory);
}

struct Scrub<const DEPTH: usize>;

impl<const DEPTH: usize> Drop for Scrub<DEPTH> {
    fn drop(&mut self) {
        overwrite_stack::<DEPTH>();
    }
}

/// Not inlined: so that all frames of `work` lie below the one of the caller, where `overwrite_stack` will write.
#[inline(never)]
fn below<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[inline(never)]
fn overwrite_stack<const DEPTH: usize>() {
    let mut frames = MaybeUninit::<[u8; DEPTH]>::uninit();
    // SAFETY: an array of our own, of that size.
    unsafe { erase(frames.as_mut_ptr().cast(), DEPTH) };
}

/// The compiler has to believe that somebody reads this memory, so the writes before it stay.
#[inline(always)]
fn looked_at(memory: *mut u8) {
    #[cfg(not(miri))]
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {} */", in(reg) memory, options(nostack, preserves_flags));
    }
    #[cfg(miri)]
    std::hint::black_box(memory);
}

/// What stands in this process's memory at an address, even if no value is there any more; asked of the kernel.
#[cfg(test)]
pub(super) fn seen(place: usize, view: &mut [u8]) {
    use std::os::unix::fs::FileExt;

    let memory = std::fs::File::open("/proc/self/mem").expect("Linux shows a process its memory");
    memory.read_exact_at(view, place as u64).expect("the memory is still mapped");
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const SECRET: [u8; 64] = *b"a secret of sixty-four bytes, which a careless function forgets.";
    /// Frames that hide the secret from whatever is called to look for it.
    const DEEP: usize = 8 * 1024;

    #[test]
    fn work_leaves_its_frames_overwritten() {
        assert!(holds_secret(careless()), "a positive control: without scrubbing it stays");
        assert!(!holds_secret(scrubbed(careless)));
    }

    #[test]
    fn work_that_panics_leaves_its_frames_overwritten() {
        let mut place = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            scrubbed(|| {
                place = careless();
                std::panic::resume_unwind(Box::new(()));
            });
        }));
        assert!(panicked.is_err());
        assert!(!holds_secret(place));
    }

    #[test]
    fn a_task_leaves_the_frames_beneath_it_overwritten() {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut task = pin!(scrubbed_task(async { careless() }));
        let std::task::Poll::Ready(place) = task.as_mut().poll(&mut context) else { unreachable!("it never waits") };
        assert!(!holds_secret(place));
    }

    /// Puts the secret onto the stack, deep below, and tells where.
    #[inline(never)]
    fn careless() -> usize {
        let mut frame = [0_u8; DEEP];
        frame[..SECRET.len()].copy_from_slice(&SECRET);
        std::hint::black_box(&frame).as_ptr() as usize
    }

    fn holds_secret(place: usize) -> bool {
        let mut view = [0; SECRET.len()];
        seen(place, &mut view);
        view == SECRET
    }
}
