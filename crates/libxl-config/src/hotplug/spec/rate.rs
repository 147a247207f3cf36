//! Rates of nics: `10Mb/s`, `250KB/s@20ms`.

/// Interval of a rate that says none, in microseconds.
const INTERVAL_DEFAULT: u32 = 50_000;

/// Octets in each interval, and the interval in microseconds. `None` for what is no rate.
pub(super) fn parse(text: &str) -> Option<(u64, u32)> {
    let (rate, interval) = match text.split_once('@') {
        Some((rate, interval)) => (rate, interval_of(interval)?),
        None => (text, INTERVAL_DEFAULT),
    };
    let per_second = rate.strip_suffix("/s")?;
    let (number, is_bits) = match per_second.strip_suffix('b') {
        Some(number) => (number, true),
        None => (per_second.strip_suffix('B')?, false),
    };
    let (number, factor) = match number.as_bytes().last()? {
        b'G' => (&number[..number.len() - 1], 1_000_000_000),
        b'M' => (&number[..number.len() - 1], 1_000_000),
        b'K' => (&number[..number.len() - 1], 1_000),
        _ => (number, 1),
    };
    let mut octets = digits(number)?.checked_mul(factor)?;
    if is_bits {
        octets /= 8;
    }
    let in_interval = u128::from(octets) * u128::from(interval) / 1_000_000;
    // libxl's own limit: the backend takes 32 bits.
    let in_interval = u32::try_from(in_interval).ok()?;
    (in_interval > 0).then_some((in_interval.into(), interval))
}

fn interval_of(text: &str) -> Option<u32> {
    let (number, factor) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1_000)
    } else if let Some(number) = text.strip_suffix("us") {
        (number, 1)
    } else {
        (text.strip_suffix('s')?, 1_000_000)
    };
    let interval = u32::try_from(digits(number)?.checked_mul(factor)?).ok()?;
    (interval > 0).then_some(interval)
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_octets_in_an_interval() {
        assert_eq!(parse("10Mb/s"), Some((62_500, 50_000)));
        assert_eq!(parse("250KB/s"), Some((12_500, 50_000)));
        assert_eq!(parse("1MB/s@20ms"), Some((20_000, 20_000)));
        assert_eq!(parse("1GB/s@1s"), Some((1_000_000_000, 1_000_000)));
        assert_eq!(parse("800B/s@5000us"), Some((4, 5_000)));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "10",
            "10Mb",
            "Mb/s",
            "10mb/s",
            "-1b/s",
            "0b/s",
            "10Mb/s@",
            "1b/s@0s",
            "99999999999GB/s",
            "10GB/s@9s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
