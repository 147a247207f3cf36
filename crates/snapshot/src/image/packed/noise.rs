//! Whether a page is worth a codec's time.

use crate::image::stream::PAGE_LEN;

/// Octets of a page that are looked at, in runs that are spread over it: neighbours, so that every octet of wider numbers is met.
const RUN: usize = 16;
const RUNS: usize = 16;

/// Pairs of equal octets, counted both ways, that so many random octets have hardly ever: 511 in the mean for all of them, with a
/// deviation of 23. Half of them come from an octet being equal to itself.
const ALL_MOST: u32 = 640;

/// The same for the first quarter: 80 in the mean, with a deviation of 6.
const QUARTER_MOST: u32 = 130;

/// Whether the octets of a page look random, so that a codec would spend time on it and make it no shorter. Memory
/// that is encrypted, compressed or keys does; text, code, numbers, pointers and anything with a few zeros does not.
pub(super) fn is_noise(page: &[u8; PAGE_LEN]) -> bool {
    let mut seen = [0u16; 256];
    let mut equal = 0;
    for run in 0..RUNS {
        let at = run * (PAGE_LEN / RUNS);
        for octet in &page[at..at + RUN] {
            let seen = &mut seen[usize::from(*octet)];
            // The square of what was seen, one step further.
            equal += u32::from(*seen) * 2 + 1;
            *seen += 1;
        }
        if run == RUNS / 4 - 1 && equal > QUARTER_MOST {
            return false;
        }
    }
    equal <= ALL_MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> [u8; PAGE_LEN] {
        let mut page = [0; PAGE_LEN];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut page);
        page
    }

    #[test]
    fn random_pages_are_noise() {
        let found = (0..2000).filter(|seed| is_noise(&noise(*seed))).count();
        assert!(found > 1990, "{found} of 2000");
    }

    #[test]
    fn pages_that_a_codec_makes_shorter_are_no_noise() {
        let text: [u8; PAGE_LEN] =
            std::array::from_fn(|at| b"a guest writes to its memory\n"[at % 29]);
        assert!(!is_noise(&text));
        for seed in 0..200 {
            let mut hex = noise(seed);
            hex.iter_mut().for_each(|octet| *octet = b"0123456789abcdef"[usize::from(*octet % 16)]);
            assert!(!is_noise(&hex), "hexadecimal");
            let mut pointers = noise(seed);
            pointers
                .as_chunks_mut::<8>()
                .0
                .iter_mut()
                .for_each(|p| p[5..].copy_from_slice(&[0x88, 0xff, 0xff]));
            assert!(!is_noise(&pointers), "addresses");
            let mut floats = noise(seed);
            floats.as_chunks_mut::<4>().0.iter_mut().for_each(|p| p[3] = 0x3f);
            assert!(!is_noise(&floats), "numbers of one size");
            let mut seven = noise(seed);
            seven.iter_mut().for_each(|octet| *octet &= 0x3f);
            assert!(!is_noise(&seven), "six bits of eight");
            let mut part = noise(seed);
            part[3072..].fill(0);
            assert!(!is_noise(&part), "a quarter of zeros");
        }
    }
}
