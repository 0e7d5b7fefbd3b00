//! Which windows are made one when room runs out, and how.

use std::{collections::VecDeque, ops::Range};

use plimsoll_common::wire::{FrameDecoder, FrameEncoder, Message, WireError, merge};

use super::segment::Segment;

/// The steps in which time gets coarser: the length of what is merged, milliseconds.
pub(super) const STEPS_MS: [u64; 2] = [10_000, 60_000];

/// The oldest segments that together are at most `length_ms` long and may be merged; `None` where nothing may. `as_one`
/// tells of a range of windows whether it is all the same to every planner.
///
/// What is still growing at the newest end is left alone: it would be merged again with every window that comes.
pub(super) fn group(
    segments: &VecDeque<Segment>,
    length_ms: u64,
    as_one: impl Fn(u64, u64) -> bool,
) -> Option<Range<usize>> {
    // Windows of 1.003 s each: ten of them are ten seconds to anybody.
    let limit = length_ms + length_ms / 20;
    let mut start = 0;
    while start + 1 < segments.len() {
        let mut end = start + 1;
        let mut length = segments[start].length_ms;
        while let Some(next) = segments.get(end) {
            let before = &segments[end - 1];
            length = length.saturating_add(next.length_ms);
            let fits = length <= limit
                && !before.whole
                && before.generation == next.generation
                && before.last + 1 == next.first
                && as_one(segments[start].first, next.last);
            if !fits {
                break;
            }
            end += 1;
        }
        if end > start + 1 && end < segments.len() {
            return Some(start..end);
        }
        start = end;
    }
    None
}

/// One segment for several.
///
/// # Errors
/// When they do not decode, or the merged report breaks a limit of the protocol.
pub(super) fn merged(
    encoder: &mut FrameEncoder,
    decoder: &mut FrameDecoder,
    segments: &[Segment],
) -> Result<Segment, WireError> {
    let mut reports = Vec::with_capacity(segments.len());
    for segment in segments {
        let Message::Report(report) = decoder.decode(&segment.frame)?.message else {
            return Err(WireError::Encode("a kept frame is no report".to_owned()));
        };
        reports.push(*report);
    }
    let report = merge(&reports).map_err(|error| WireError::Encode(error.to_string()))?;
    let (Some(earliest), Some(latest)) = (segments.first(), segments.last()) else {
        return Err(WireError::Encode("there is nothing to merge".to_owned()));
    };
    let settled = segments.iter().map(|segment| segment.settled).min().flatten();
    let length_ms = report.length_ms;
    let mut frame = encoder.encode(&Message::Report(Box::new(report)), 0)?;
    frame.shrink_to_fit();
    Ok(Segment {
        first: earliest.first,
        last: latest.last,
        generation: latest.generation,
        length_ms,
        frame,
        closed: latest.closed,
        settled,
        whole: false,
    })
}
