//! Digests of pages of zeros, without looking at one.

use std::sync::LazyLock;

use super::stream::PAGE_LEN;

const ZEROS: [u8; PAGE_LEN] = [0; PAGE_LEN];

/// What a page of zeros makes of each octet of a CRC's register; the four together, exclusive or, are what it makes of the register.
static PAGE: LazyLock<[[u32; 256]; 4]> = LazyLock::new(|| {
    // A CRC is linear but for its register being inverted before and after.
    let register_behind_page = |register: u32| !crc32c::crc32c_append(!register, &ZEROS);
    let mut table = [[0; 256]; 4];
    for (shift, of_octet) in (0..).step_by(8).zip(&mut table) {
        for (octet, behind) in (0..).zip(of_octet) {
            *behind = register_behind_page(octet << shift);
        }
    }
    table
});

/// The CRC32C of octets whose CRC32C is `crc`, with `len` zeros behind them.
pub(crate) fn crc_with_zeros(crc: u32, len: usize) -> u32 {
    let page = &*PAGE;
    let mut register = !crc;
    for _ in 0..len / PAGE_LEN {
        let octets = register.to_le_bytes();
        register = page.iter().zip(octets).fold(0, |sum, (of, octet)| sum ^ of[usize::from(octet)]);
    }
    crc32c::crc32c_append(!register, &ZEROS[..len % PAGE_LEN])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn zeros_that_are_not_looked_at_have_the_digest_of_zeros(
            before in prop::collection::vec(any::<u8>(), 0..64),
            pages in 0..300usize,
            rest in 0..PAGE_LEN,
        ) {
            let len = pages * PAGE_LEN + rest;
            let mut octets = before.clone();
            octets.resize(before.len() + len, 0);
            prop_assert_eq!(crc_with_zeros(crc32c::crc32c(&before), len), crc32c::crc32c(&octets));
        }
    }
}
