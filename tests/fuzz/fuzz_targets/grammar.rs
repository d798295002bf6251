#![no_main]

// The compiler catches panics of the library's; libFuzzer's own hook would end the process before that.
libfuzzer_sys::fuzz_target!(
    init: drop(std::panic::take_hook()),
    |data: &[u8]| millrace::fuzz::grammar(data)
);
