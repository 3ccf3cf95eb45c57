//! Every target is this file under another name: the table of `moveout::fuzzing` says what each of them does.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moveout::fuzzing::run(env!("CARGO_BIN_NAME"), bytes));
