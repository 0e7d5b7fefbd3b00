//! Numbers as metrics pages write them.

/// The powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The largest whole number up to which a double holds all.
const EXACT_WHOLE: u64 = 1 << 53;

/// More digits than these could overflow the accumulated whole number.
const MAX_DIGITS: usize = 18;

/// Parses a number in the exposition formats' syntax (`1`, `1.0`, `1e-05`, `NaN`, `+Inf`, …); `None` when it is none.
///
/// Gives the bits that `str::parse::<f64>` gives. Short decimals take a fast path: with a whole mantissa of at most
/// 2^53 and a power of ten of at most 22 both operands are exact, so that IEEE 754's one multiplication or division is
/// correctly rounded (W. D. Clinger, "How to read floating point numbers accurately", 1990).
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    short_decimal(text.as_bytes()).or_else(|| text.parse().ok())
}

fn short_decimal(bytes: &[u8]) -> Option<f64> {
    let (negative, unsigned) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, bytes),
    };
    let mut mantissa = 0u64;
    let (whole, rest) = digits(unsigned, &mut mantissa);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => digits(rest, &mut mantissa),
        _ => (0, rest),
    };
    if whole + fraction == 0 || whole + fraction > MAX_DIGITS || mantissa > EXACT_WHOLE {
        return None;
    }
    let power = exponent(rest)? - fraction as i32;
    let scale = *EXACT_POWERS.get(power.unsigned_abs() as usize)?;
    let magnitude = if power < 0 { mantissa as f64 / scale } else { mantissa as f64 * scale };
    Some(if negative { -magnitude } else { magnitude })
}

/// Takes the leading digits into `value`; gives how many there were and what follows them. `value` is of use only up
/// to [`MAX_DIGITS`], beyond that it wraps.
fn digits<'a>(bytes: &'a [u8], value: &mut u64) -> (usize, &'a [u8]) {
    let mut n = 0;
    while let Some(digit) = bytes.get(n).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        n += 1;
    }
    (n, &bytes[n..])
}

/// The exponent that makes up all of `bytes`: 0 when empty, `None` for what is none or is longer than three digits.
fn exponent(bytes: &[u8]) -> Option<i32> {
    let (negative, unsigned) = match bytes {
        [] => return Some(0),
        [b'e' | b'E', b'-', rest @ ..] => (true, rest),
        [b'e' | b'E', b'+', rest @ ..] | [b'e' | b'E', rest @ ..] => (false, rest),
        _ => return None,
    };
    let mut value = 0u64;
    let (n, rest) = digits(unsigned, &mut value);
    if n == 0 || n > 3 || !rest.is_empty() {
        return None;
    }
    Some(if negative { -(value as i32) } else { value as i32 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same_as_std(text: &str) {
        let ours = parse(text).map(f64::to_bits);
        let std = text.parse::<f64>().ok().map(f64::to_bits);
        assert_eq!(ours, std, "{text:?}");
    }

    #[test]
    fn pages_spell_numbers_in_many_ways() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "1",
            "1.0",
            "+1",
            "15301.0",
            "5.247410176e+09",
            "1.79535365758e+09",
            "1e-05",
            "1E5",
            "0.9230769230769231",
            "NaN",
            "nan",
            "Inf",
            "+Inf",
            "-Inf",
            ".5",
            "5.",
            "9007199254740993",
            "1e400",
            "4.9e-324",
            "123456789012345678901234567890",
            "00000000000000000000001",
            "1e22",
            "1e23",
            "1e-22",
        ] {
            assert!(parse(text).is_some(), "{text:?}");
            same_as_std(text);
        }
        for text in ["", "-", "+", ".", "e5", "1e", "1e+", "1 ", "0x10", "1_000", "--1", "1.2.3", "１"] {
            assert_eq!(parse(text), None, "{text:?}");
            same_as_std(text);
        }
    }

    proptest! {
        /// Invariant: every text gives what the standard library gives, bit by bit.
        #[test]
        fn equal_to_std(text in "[-+]?[0-9]{0,20}(\\.[0-9]{0,20})?([eE][-+]?[0-9]{0,4})?") {
            same_as_std(&text);
        }

        /// Invariant: every double survives its shortest decimal form and Python's form of large and small numbers.
        #[test]
        fn doubles_round_trip(bits: u64) {
            let value = f64::from_bits(bits);
            same_as_std(&format!("{value}"));
            same_as_std(&format!("{value:e}"));
        }

        /// Invariant: no text makes it panic or differ from the standard library.
        #[test]
        fn any_text(text in "\\PC{0,12}") {
            same_as_std(&text);
        }
    }
}
