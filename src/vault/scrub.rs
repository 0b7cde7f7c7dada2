//! Overwriting what nobody will read any more, so that the compiler cannot leave it out: memory, and the stack below.
//!
//! Computing with a secret leaves pieces of it in the frames of the functions that computed: a hash function's block, the
//! round keys of a cipher. [`scrubbed`] runs such work in frames of its own and overwrites them afterwards, and the vector
//! registers too: a copying loop leaves up to a kilobyte there, which stays for as long as its thread then sleeps, and is part of
//! a core dump. The others are used by whatever runs next.

#![expect(unsafe_code, reason = "only raw writes reach memory that has no name any more")]

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::pin;

/// How far down the stack is overwritten after work with a secret: several times what a lend was seen to use, in a build
/// without optimisation too.
pub(super) const DEPTH: usize = 8 * 1024;

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

/// Overwrites an array.
pub(super) fn erase_array<const SIZE: usize>(array: &mut [u8; SIZE]) {
    // SAFETY: it is the caller's to write, and zeros are bytes.
    unsafe { erase(array.as_mut_ptr(), SIZE) };
}

struct Scrub<const DEPTH: usize>;

impl<const DEPTH: usize> Drop for Scrub<DEPTH> {
    fn drop(&mut self) {
        overwrite_stack::<DEPTH>();
        overwrite_vector_registers();
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

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(never)]
fn overwrite_vector_registers() {
    // SAFETY: registers that any function called may change are set to zero; each instruction is there if its feature is.
    unsafe {
        if !std::arch::is_x86_feature_detected!("avx") {
            std::arch::asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nostack)
            );
            return;
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            // Nobody but code that looked for this feature uses the upper sixteen; a C library's memcpy does.
            std::arch::asm!(
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("sysv64"),
                options(nostack)
            );
        }
        std::arch::asm!("vzeroall", clobber_abi("sysv64"), options(nostack));
    }
}

/// Elsewhere they are left to whatever runs next.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn overwrite_vector_registers() {}

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

/// How many bytes of stack `work` uses below its caller, as far as it writes to them.
#[cfg(test)]
pub(super) fn depth_of(work: impl FnOnce()) -> usize {
    const PAINTED: usize = 256 * 1024;
    const PAINT: u8 = 0x5a;

    #[inline(never)]
    fn paint() -> usize {
        let mut frames = MaybeUninit::<[u8; PAINTED]>::uninit();
        // SAFETY: an array of our own, of that size.
        unsafe { frames.as_mut_ptr().cast::<u8>().write_bytes(PAINT, PAINTED) };
        looked_at(frames.as_mut_ptr().cast());
        frames.as_ptr() as usize
    }

    let mut view = vec![0; PAINTED];
    let place = paint();
    below(work);
    seen(place, &mut view);
    PAINTED - view.iter().position(|byte| *byte != PAINT).unwrap_or(PAINTED)
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
    const DEEP: usize = 4 * 1024;

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

    #[test]
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn work_leaves_its_vector_registers_overwritten() {
        let (mut lower, mut upper) = ([1_u8; 16], [0_u8; 64]);
        let wide = std::arch::is_x86_feature_detected!("avx512f");
        // SAFETY: the secret is as long as the widest register, and so is what they are read into.
        unsafe {
            let secret = SECRET.as_ptr();
            if wide {
                std::arch::asm!("vmovdqu64 zmm20, [{}]", in(reg) secret);
            }
            std::arch::asm!("movdqu xmm11, [{}]", in(reg) secret, out("xmm11") _);
            overwrite_vector_registers();
            std::arch::asm!("movdqu [{}], xmm11", in(reg) lower.as_mut_ptr());
            if wide {
                std::arch::asm!("vmovdqu64 [{}], zmm20", in(reg) upper.as_mut_ptr());
            }
        }
        assert_eq!((lower, upper), ([0; 16], [0; 64]));
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
