//! The system's allocator, counting what this thread asks for and what it gives back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    // It may fall below zero: a thread may give back what another one asked for.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// How often memory was asked for so far.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Bytes asked for and not given back, without what the allocator itself adds.
pub(crate) fn live() -> i64 {
    LIVE.get()
}

fn count(taken: usize, given_back: usize) {
    let signed = |size: usize| i64::try_from(size).expect("a layout is at most isize::MAX long");
    CALLS.set(CALLS.get() + u64::from(taken > 0));
    LIVE.set(LIVE.get() + signed(taken) - signed(given_back));
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait; it hands every call on")]
// SAFETY: each method passes its arguments unchanged to the system's allocator, whose contract is the same; counting
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}
