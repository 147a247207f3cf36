//! Numbers at fixed places.

/// `N` octets at a place; those that are not there are zero.
pub(crate) fn array<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(octets.iter().skip(at)) {
        *to = *from;
    }
    array
}

pub(crate) fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(octets, at))
}

pub(crate) fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(octets, at))
}

pub(crate) fn u64_at(octets: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(octets, at))
}
