//! LEB128: seven bits a byte, the lowest first, the top bit says that more follow.

/// Appends a number in 1 to 10 bytes.
pub(super) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front; `None` when the bytes end early or the number needs more than 64 bits.
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    // Most numbers are small.
    if let Some((byte, rest)) = bytes.split_first().filter(|(byte, _)| **byte < 0x80) {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn endless_and_cut_numbers_are_refused() {
        assert_eq!(read(&mut [0xff; 11].as_slice()), None);
        assert_eq!(read(&mut [0x80].as_slice()), None);
        assert_eq!(read(&mut [].as_slice()), None);
        let sixty_five_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(read(&mut sixty_five_bits.as_slice()), None);
    }

    proptest! {
        /// Invariant: every number comes back, and nothing behind it is touched.
        #[test]
        fn numbers_round_trip(value: u64, behind in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            bytes.extend(&behind);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read(&mut rest), Some(value));
            prop_assert_eq!(rest, behind.as_slice());
        }
    }
}
