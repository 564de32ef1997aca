#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netspy::fuzzing::dns_message(data));
