//! The allocator of the daemon, or the system's own, as told.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use reveille::vault::WipingAllocator;

static WIPES: AtomicBool = AtomicBool::new(false);

/// Whether freed memory is overwritten from now on.
pub(crate) fn wipe(wipes: bool) {
    WIPES.store(wipes, Ordering::Relaxed);
}

/// Not counted here.
pub(crate) fn calls() -> u64 {
    0
}

struct Switching;

#[global_allocator]
static ALLOCATOR: Switching = Switching;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait; it hands every call on")]
// SAFETY: each method passes its arguments unchanged to one of two allocators with the same contract, and both take and
// give back the system's memory.
unsafe impl GlobalAlloc for Switching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if WIPES.load(Ordering::Relaxed) {
            // SAFETY: the caller's promise is passed on.
            unsafe { WipingAllocator.dealloc(memory, layout) }
        } else {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(memory, layout) }
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if WIPES.load(Ordering::Relaxed) {
            // SAFETY: the caller's promise is passed on.
            unsafe { WipingAllocator.realloc(memory, layout, size) }
        } else {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.realloc(memory, layout, size) }
        }
    }
}
