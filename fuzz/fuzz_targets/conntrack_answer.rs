#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netspy::fuzzing::conntrack_answer(data));
