//! From the bytes of a ring record to its type. Pure: needs no kernel.

use plain::Plain;

use super::skel::types::{
    netspy_cgroup, netspy_conn, netspy_counters, netspy_dns, netspy_exec, netspy_fork, netspy_unix,
};

/// `enum netspy_kind` of connect.h.
const KIND_CONN: u32 = 1;
const KIND_UNIX: u32 = 2;
const KIND_EXEC: u32 = 3;
const KIND_DNS: u32 = 4;
const KIND_CGROUP: u32 = 5;
const KIND_FORK: u32 = 7;

/// A ring record.
#[derive(Debug)]
pub(crate) enum Raw {
    Conn(netspy_conn),
    Unix(netspy_conn, Vec<u8>),
    Exec(Box<netspy_exec>),
    Fork(netspy_fork),
    /// The id and the path of a control group that was made.
    Cgroup(u64, Vec<u8>),
    /// A DNS message, as far as it was kept.
    Dns(netspy_dns, Vec<u8>),
}

/// The bytes are no record that this version knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than its kind has.
    #[error("record of {0} bytes")]
    TooShort(usize),
    /// A kind that this version does not know.
    #[error("record of unknown kind {0}")]
    UnknownKind(u32),
    /// A member has a value that this version does not know.
    #[error("record with an unknown family, type or phase")]
    UnknownValue,
}

/// Copies a value out of bytes of any alignment.
pub(super) fn read<T: Plain + Copy>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `Plain` promises that every pattern of bytes is a value, zeroes included.
    #[allow(unsafe_code)]
    let value = unsafe { value.assume_init_mut() };
    // Fails only where there are fewer bytes than the type has.
    value.copy_from_bytes(bytes).map_err(|_| DecodeError::TooShort(bytes.len()))?;
    Ok(*value)
}

/// Decodes one ring record. Longer records than expected are read by their known part, since the
/// ring rounds sizes up.
pub(crate) fn decode(bytes: &[u8]) -> Result<Raw, DecodeError> {
    let kind = bytes.first_chunk::<4>().ok_or(DecodeError::TooShort(bytes.len()))?;
    match u32::from_ne_bytes(*kind) {
        KIND_CONN => Ok(Raw::Conn(read(bytes)?)),
        KIND_UNIX => {
            let unix: netspy_unix = read(bytes)?;
            let used = (unix.path_len as usize).min(unix.path.len());
            Ok(Raw::Unix(unix.conn, unix.path[..used].to_vec()))
        }
        KIND_EXEC => exec(bytes).map(Raw::Exec),
        KIND_FORK => Ok(Raw::Fork(read(bytes)?)),
        KIND_CGROUP => {
            let cgroup: netspy_cgroup = read(bytes)?;
            let used = (cgroup.path_len as usize).min(cgroup.path.len());
            Ok(Raw::Cgroup(cgroup.id, cgroup.path[..used].to_vec()))
        }
        KIND_DNS => {
            let dns: netspy_dns = read(bytes)?;
            let message = bytes.get(size_of::<netspy_dns>()..).unwrap_or_default();
            let message =
                message.get(..dns.kept.into()).ok_or(DecodeError::TooShort(bytes.len()))?;
            Ok(Raw::Dns(dns, message.to_vec()))
        }
        other => Err(DecodeError::UnknownKind(other)),
    }
}

/// The last member is there as far as it is used.
fn exec(bytes: &[u8]) -> Result<Box<netspy_exec>, DecodeError> {
    let least = std::mem::offset_of!(netspy_exec, names);
    if bytes.len() < least {
        return Err(DecodeError::TooShort(bytes.len()));
    }
    let mut whole = [0; size_of::<netspy_exec>()];
    let used = bytes.len().min(whole.len());
    whole[..used].copy_from_slice(&bytes[..used]);
    Ok(Box::new(read(&whole)?))
}

/// Decodes what an iterator wrote: records of one size, one after the other.
pub(crate) fn decode_all(bytes: &[u8]) -> impl Iterator<Item = Result<Raw, DecodeError>> {
    bytes.chunks(size_of::<netspy_conn>()).map(decode)
}

/// Sums the counters of all processors; short values count as zero.
pub(crate) fn sum_counters<'a>(per_cpu: impl Iterator<Item = &'a [u8]>) -> netspy_counters {
    let mut sum = netspy_counters::default();
    for one in per_cpu.filter_map(|bytes| read::<netspy_counters>(bytes).ok()) {
        sum.attempts += one.attempts;
        sum.filtered += one.filtered;
        sum.ring_full += one.ring_full;
        sum.map_full += one.map_full;
        sum.updates_lost += one.updates_lost;
        sum.address_unread += one.address_unread;
        sum.exec_lost += one.exec_lost;
        sum.waiting += one.waiting;
        sum.settled += one.settled;
        sum.left += one.left;
        sum.stood_in += one.stood_in;
        sum.unfollowed += one.unfollowed;
        sum.dns_lost += one.dns_lost;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A refused TCP connect as the kernel side writes it, member by member.
    fn refused() -> Vec<u8> {
        let mut bytes = vec![0; size_of::<netspy_conn>()];
        bytes[0] = KIND_CONN as u8;
        bytes[6] = 2; // failed
        bytes[7] = 3; // sk_error
        bytes[8..16].copy_from_slice(&1_000_u64.to_ne_bytes());
        bytes[72..76].copy_from_slice(&4242_u32.to_ne_bytes());
        bytes[92..96].copy_from_slice(&111_i32.to_ne_bytes());
        bytes[112..114].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[120..122].copy_from_slice(&443_u16.to_ne_bytes());
        bytes[144..148].copy_from_slice(&[127, 0, 0, 1]);
        bytes[160..164].copy_from_slice(b"curl");
        bytes
    }

    #[test]
    fn the_members_are_where_the_kernel_side_puts_them() {
        let Ok(Raw::Conn(conn)) = decode(&refused()) else { panic!("not a connection") };
        assert_eq!((conn.phase, conn.evidence, conn.error), (2, 3, 111));
        assert_eq!((conn.start_ns, conn.pid, conn.family, conn.remote_port), (1_000, 4242, 2, 443));
        assert_eq!((&conn.remote[..4], &conn.comm[..5]), (&[127, 0, 0, 1][..], &b"curl\0"[..]));
    }

    #[test]
    fn records_are_read_at_any_alignment() {
        let mut shifted = vec![0xff];
        shifted.extend(refused());
        assert!(matches!(decode(&shifted[1..]), Ok(Raw::Conn(conn)) if conn.pid == 4242));
    }

    #[test]
    fn short_and_unknown_records_are_errors() {
        for len in 0..refused().len() {
            assert!(decode(&refused()[..len]).is_err(), "{len} bytes");
        }
        let mut unknown = refused();
        unknown[0] = 99;
        assert_eq!(decode(&unknown).unwrap_err(), DecodeError::UnknownKind(99));
    }

    #[test]
    fn a_path_length_out_of_range_is_bounded() {
        let mut bytes = vec![0; size_of::<netspy_unix>()];
        bytes[0] = KIND_UNIX as u8;
        bytes[224..228].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(decode(&bytes), Ok(Raw::Unix(_, path)) if path.len() == 108));
    }
}
