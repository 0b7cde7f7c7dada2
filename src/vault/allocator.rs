//! An allocator that overwrites memory before it gives it back.
//!
//! Whatever held a secret for a moment without our doing (a buffer of TLS or HTTP, a string of a JSON parser, a vector that
//! grew) is gone once it is freed. Installed by the binary, for everything that Rust allocates; the crypto library, which
//! is C, overwrites what it frees by itself.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};

use super::scrub::erase;

/// The system's allocator, zero-on-free.
pub struct WipingAllocator;

// SAFETY: memory comes from `System` and goes back to it with the layout it was asked for with; `realloc` is the trait's
// own recipe (allocate, copy, free). Nothing here allocates by itself or unwinds.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller owns `layout.size()` bytes at `memory` and never touches them again.
        unsafe { erase(memory, layout.size()) };
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no overflow and not zero.
        let roomy = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the layout's size is not zero.
        let fresh = unsafe { System.alloc(roomy) };
        if !fresh.is_null() {
            // SAFETY: both hold that many bytes, and fresh memory overlaps nothing that is still owned.
            unsafe { std::ptr::copy_nonoverlapping(memory, fresh, layout.size().min(size)) };
            // SAFETY: what the caller owned is his no more, and he asked for it with this layout.
            unsafe { self.dealloc(memory, layout) };
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::super::scrub::seen;
    use super::*;

    const SIZE: usize = 4096;
    /// Where the C library keeps lists of what is free, for blocks of this size.
    const BOOKKEEPING: usize = 64;

    #[test]
    fn freed_memory_holds_nothing_of_what_was_in_it() {
        let mut view = view();
        let place = freed_by(&WipingAllocator);
        assert_eq!(left(place, &mut view), 0);
        let place = freed_by(&System);
        assert!(left(place, &mut view) > SIZE / 2, "a positive control: the system's own allocator leaves it there");
    }

    #[test]
    fn memory_that_is_outgrown_holds_nothing_and_the_new_one_everything() {
        let mut view = view();
        let (layout, roomy) = (layout(SIZE), layout(2 * SIZE));
        // SAFETY: the layouts' sizes are not zero; each block is used within its bounds and freed once.
        unsafe {
            let memory = WipingAllocator.alloc(layout);
            memory.write_bytes(0xa5, SIZE);
            let grown = WipingAllocator.realloc(memory, layout, 2 * SIZE);
            assert_ne!(memory, grown, "always a new place");
            assert_eq!(left(memory as usize, &mut view), 0);
            assert!(std::slice::from_raw_parts(grown, SIZE).iter().all(|byte| *byte == 0xa5));
            let shrunk = WipingAllocator.realloc(grown, roomy, SIZE / 2);
            assert!(std::slice::from_raw_parts(shrunk, SIZE / 2).iter().all(|byte| *byte == 0xa5));
            assert_eq!(left(grown as usize, &mut view), 0);
            WipingAllocator.dealloc(shrunk, Layout::from_size_align(SIZE / 2, 16).expect("a layout"));
        }
    }

    fn freed_by(allocator: &impl GlobalAlloc) -> usize {
        let layout = layout(SIZE);
        // SAFETY: the layout's size is not zero; the block is written within its bounds and freed once.
        unsafe {
            let memory = allocator.alloc(layout);
            memory.write_bytes(0xa5, SIZE);
            // Or the compiler would leave out what nobody reads.
            allocator.dealloc(std::hint::black_box(memory), layout);
            memory as usize
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).expect("a layout")
    }

    /// Room for what is seen, taken before anything is freed, so as not to take its place.
    fn view() -> Vec<u8> {
        vec![0; SIZE - BOOKKEEPING]
    }

    /// How many bytes of a freed block still are what was written.
    fn left(place: usize, view: &mut [u8]) -> usize {
        seen(place + BOOKKEEPING, view);
        view.iter().filter(|byte| **byte == 0xa5).count()
    }
}
