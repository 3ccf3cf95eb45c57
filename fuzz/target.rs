//! Every target is this file under another name: the table of `moveout::fuzzing` says what each of them does.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic;
use std::sync::Once;

const NAME: &str = env!("CARGO_BIN_NAME");
/// The most bytes that are asked for at once, since a length in the input is only a claim. A message of Flight may have
/// 256 MiB, and so may a page of a catalog.
const MOST: usize =
    if matches!(NAME.as_bytes(), b"flight" | b"chunks") { 300 << 20 } else { 64 << 20 };

struct Bounded;

// SAFETY: it only forwards to the system's allocator.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) }
    }
}

fn check(size: usize) {
    if size > MOST {
        eprintln!("{size} bytes are asked for at once");
        std::process::abort();
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The hook of libFuzzer would also end the process at a panic that the product catches.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| panic::set_hook(Box::new(|_| ())));
    if let Err(why) = panic::catch_unwind(|| moveout::fuzzing::run(NAME, bytes)) {
        let text = why.downcast_ref::<String>().map(String::as_str);
        eprintln!("{}", text.or(why.downcast_ref::<&str>().copied()).unwrap_or_default());
        std::process::abort();
    }
});
