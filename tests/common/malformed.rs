//! Requests that are none.
#![allow(missing_docs)]

use super::Random;

/// Bytes that are no requests, or no good ones, from a generator that always makes the same.
pub fn malformed(wild: &mut Random) -> Vec<u8> {
    let starts: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/connection-summary HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/list-connections HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{\"pid\":{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /api/v1/connections?limit=99999999999999999999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1/connections/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX:\r\n y\r\n\r\n",
        b"\r\n\r\n\r\n",
    ];
    let mut bytes = wild.one(&starts).to_vec();
    for _ in 0..wild.next(4) {
        let at = wild.next(bytes.len() as u64) as usize;
        bytes[at] = wild.next(256) as u8;
    }
    bytes
}
