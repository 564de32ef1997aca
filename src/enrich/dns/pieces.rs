//! Messages of which TCP brought the parts: put together again.

use std::collections::VecDeque;

use crate::capture::skel::types::netspy_dns;

/// Messages that wait for their rest. Of one direction of one socket there is one at most.
const WAITING: usize = 256;

#[derive(Debug)]
struct Piece {
    sock: u64,
    is_answer: bool,
    len: u16,
    bytes: Vec<u8>,
}

/// Messages of which the beginning is there.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    waiting: VecDeque<Piece>,
    lost: u64,
}

impl Pieces {
    /// A part; gives the message once it is whole.
    pub(super) fn add(&mut self, dns: &netspy_dns, bytes: &[u8]) -> Option<Vec<u8>> {
        let is_answer = dns.is_answer != 0;
        let place =
            self.waiting.iter().position(|p| p.sock == dns.sock && p.is_answer == is_answer);
        let mut piece = match place.and_then(|place| self.waiting.remove(place)) {
            Some(piece) if piece.bytes.len() == usize::from(dns.begin) && piece.len == dns.len => {
                piece
            }
            other => {
                // What was there will not become whole, nor will what begins in the middle.
                self.lost += u64::from(other.is_some() || dns.begin != 0);
                if dns.begin != 0 {
                    return None;
                }
                Piece { sock: dns.sock, is_answer, len: dns.len, bytes: Vec::new() }
            }
        };
        piece.bytes.extend_from_slice(bytes);
        if piece.bytes.len() >= usize::from(piece.len) {
            return Some(piece.bytes);
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(piece);
        None
    }

    /// Messages that did not become whole.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(sock: u64, len: usize, begin: usize) -> netspy_dns {
        let (len, begin) = (len as u16, begin as u16);
        netspy_dns { sock, len, begin, is_answer: 1, ..netspy_dns::default() }
    }

    #[test]
    fn parts_become_the_message_whatever_comes_between() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.add(&part(1, 6, 0), b"ab"), None);
        assert_eq!(pieces.add(&part(2, 3, 0), b"xyz"), Some(b"xyz".to_vec()));
        let question = netspy_dns { is_answer: 0, ..part(1, 2, 0) };
        assert_eq!(pieces.add(&question, b"q?"), Some(b"q?".to_vec()));
        assert_eq!(pieces.add(&part(1, 6, 2), b"cde"), None);
        assert_eq!(pieces.add(&part(1, 6, 5), b"f"), Some(b"abcdef".to_vec()));
        assert_eq!(pieces.lost(), 0);
    }

    #[test]
    fn what_has_a_hole_is_counted_and_never_guessed() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.add(&part(1, 6, 2), b"cd"), None, "the beginning is missing");
        pieces.add(&part(1, 6, 0), b"ab");
        assert_eq!(pieces.add(&part(1, 6, 4), b"ef"), None, "the middle is missing");
        pieces.add(&part(1, 6, 0), b"ab");
        assert_eq!(pieces.add(&part(1, 3, 0), b"new"), Some(b"new".to_vec()));
        assert_eq!(pieces.lost(), 3);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut pieces = Pieces::default();
        for sock in 0..1000 {
            pieces.add(&part(sock, 6, 0), b"ab");
        }
        assert_eq!((pieces.waiting.len(), pieces.lost()), (WAITING, 1000 - WAITING as u64));
    }
}
