//! Looking through the tables of the kernel side, by one of two ways (src/bpf/sweep.h).

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::skel::types::netspy_walk;
use super::sys;

/// A program that looks at each entry of a table when it is asked to.
#[derive(Debug)]
pub(crate) enum Walk {
    /// The link of an iterator, which is read.
    Iterator(OwnedFd),
    /// A program that is run.
    Program(OwnedFd),
}

/// Bytes of an iterator read at a time: no less than the kernel writes at once.
const BYTES: usize = 1 << 18;

impl Walk {
    /// Of the program that has this name, and of its link, if it has one.
    pub(super) fn new(program: BorrowedFd<'_>, link: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        Ok(match link {
            Some(link) => Walk::Iterator(link.try_clone_to_owned()?),
            None => Walk::Program(program.try_clone_to_owned()?),
        })
    }

    /// The same, for another owner.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Walk::Iterator(link) => Walk::Iterator(link.try_clone()?),
            Walk::Program(program) => Walk::Program(program.try_clone()?),
        })
    }

    /// Looks at all entries. What an iterator writes goes to `written`; what a program has to
    /// say it puts into a ring, where `take` finds it, and where there may be too little room for
    /// all: then it is taken before the rest.
    pub(crate) fn run(
        &self,
        mut written: impl FnMut(&[u8]),
        mut take: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let program = match self {
            Walk::Iterator(link) => return read(link.as_fd(), &mut written),
            Walk::Program(program) => program,
        };
        let mut walk = netspy_walk::default();
        loop {
            sys::run_program(program.as_fd(), &mut walk)?;
            take()?;
            if walk.is_full == 0 {
                return Ok(());
            }
            if walk.seen <= walk.skip {
                // Not even one found room.
                return Err(ErrorKind::StorageFull.into());
            }
            walk = netspy_walk { skip: walk.seen, ..<_>::default() };
        }
    }
}

fn read(link: BorrowedFd<'_>, written: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut iter = std::fs::File::from(sys::iterator(link)?);
    let mut bytes = vec![0; BYTES];
    loop {
        match iter.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(len) => written(bytes.get(..len).unwrap_or_default()),
            // After a million entries of which none had anything to say.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
