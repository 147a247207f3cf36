//! Names and numbers of virtual disks, as Xen's `vbd-interface` document has them.

/// The number of a vdev: of `xvda`, `hdc`, `sdb1`, `d0p1`, or of a plain number. `None` for what is no vdev.
pub(super) fn number(vdev: &str) -> Option<u32> {
    if let Some(number) = plain(vdev) {
        return Some(number);
    }
    if let Some(rest) = vdev.strip_prefix("xvd") {
        let (disk, partition) = letters_and_partition(rest)?;
        return virtual_disk(disk, partition);
    }
    if let Some(rest) = vdev.strip_prefix("hd") {
        let (disk, partition) = letters_and_partition(rest)?;
        let major = match disk {
            0 | 1 => 3,
            2 | 3 => 22,
            _ => return None,
        };
        return (partition <= 63).then_some(major << 8 | (disk & 1) << 6 | partition);
    }
    if let Some(rest) = vdev.strip_prefix("sd") {
        let (disk, partition) = letters_and_partition(rest)?;
        return (disk <= 15 && partition <= 15).then_some(8 << 8 | disk << 4 | partition);
    }
    let (disk, partition) = vdev.strip_prefix('d')?.split_once('p')?;
    virtual_disk(plain(disk)?, plain(partition)?)
}

/// The name of a vdev's number; `None` for a number of no known kind.
pub(super) fn name(number: u32) -> Option<String> {
    let with_partition = |prefix: &str, disk: u32, partition: u32| {
        let mut name = format!("{prefix}{}", letters(disk));
        if partition > 0 {
            name.push_str(&partition.to_string());
        }
        name
    };
    if number >> 28 == 1 {
        let rest = number & 0x0fff_ffff;
        return Some(with_partition("xvd", rest >> 8, rest & 0xff));
    }
    let (major, minor) = (number >> 8, number & 0xff);
    match major {
        202 => Some(with_partition("xvd", minor >> 4, minor & 15)),
        3 => Some(with_partition("hd", minor >> 6 & 1, minor & 63)),
        22 => Some(with_partition("hd", 2 + (minor >> 6 & 1), minor & 63)),
        8 => Some(with_partition("sd", minor >> 4, minor & 15)),
        _ => None,
    }
}

fn virtual_disk(disk: u32, partition: u32) -> Option<u32> {
    if disk <= 15 && partition <= 15 {
        return Some(202 << 8 | disk << 4 | partition);
    }
    (disk < 1 << 20 && partition < 256).then_some(1 << 28 | disk << 8 | partition)
}

fn plain(text: &str) -> Option<u32> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `a` to 0, `z` to 25, `aa` to 26; digits behind are the partition.
fn letters_and_partition(text: &str) -> Option<(u32, u32)> {
    let end = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    let (letters, partition) = text.split_at(end);
    let disk = letters
        .bytes()
        .try_fold(0_u32, |n, c| n.checked_mul(26)?.checked_add(u32::from(c - b'a') + 1))?;
    let partition = if partition.is_empty() { 0 } else { plain(partition)? };
    Some((disk.checked_sub(1)?, partition))
}

fn letters(disk: u32) -> String {
    let mut rest = disk + 1;
    let mut letters = Vec::new();
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + u8::try_from(rest % 26).expect("a remainder of 26 fits")));
        rest /= 26;
    }
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn aliases_of_one_disk_have_one_number() {
        for vdev in ["xvda", "d0p0", "51712"] {
            assert_eq!(number(vdev), Some(51712), "{vdev}");
        }
        assert_eq!(number("xvdd"), Some(51760));
        assert_eq!(number("hdc"), Some(5632));
        assert_eq!(number("hdd1"), Some(22 << 8 | 64 | 1));
        assert_eq!(number("sdb2"), Some(8 << 8 | 16 | 2));
        assert_eq!(number("xvdq"), Some(1 << 28 | 16 << 8));
        assert_eq!(number("xvdaa"), Some(1 << 28 | 26 << 8));
    }

    #[test]
    fn what_is_no_vdev_has_no_number() {
        for vdev in [
            "",
            "xvd",
            "hde",
            "sdq",
            "d0",
            "xvda-",
            "vda",
            "99999999999",
            "xvdzzzzzzzzzzz",
            "d1p256",
        ] {
            assert_eq!(number(vdev), None, "{vdev}");
        }
    }

    proptest! {
        #[test]
        fn the_name_of_a_number_has_that_number(any in any::<u32>()) {
            if let Some(name) = name(any) {
                // Numbers in the long form that the short form also has are names of the short one.
                if let Some(again) = number(&name) && again != any {
                    prop_assert_eq!(super::name(again), Some(name));
                }
            }
        }
    }
}
