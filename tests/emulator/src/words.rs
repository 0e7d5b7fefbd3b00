//! What the emulated model says, and the hash behind everything that looks random.

/// Words that small tokenizers, trained on texts about this subject, know as one token each.
const WORDS: [&str; 16] = [
    " the",
    " agent",
    " scrapes",
    " metrics",
    " and",
    " telemetry",
    " quick",
    " latency",
    " histograms",
    " with",
    " value",
    " from",
    " one",
    " line",
    " start",
    " result",
];

/// The text of tokens `from` (exclusive) to `to` (inclusive) of an answer whose dice show `dice`.
pub(crate) fn text(dice: u64, from: u32, to: u32) -> String {
    (from..to).map(|index| WORDS[(mix(dice ^ u64::from(index)) % WORDS.len() as u64) as usize]).collect()
}

/// A bijection that scatters its input over all 64 bits (the finalizer of SplitMix64).
pub(crate) const fn mix(input: u64) -> u64 {
    let mut bits = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number in [0, 1) from dice.
pub(crate) fn unit_interval(dice: u64) -> f64 {
    (dice >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let whole = text(7, 0, 40);
        let pieces: String = (0..40).map(|index| text(7, index, index + 1)).collect();
        assert_eq!(whole, pieces);
        assert_eq!(whole.split(' ').count(), 41);
    }
}
