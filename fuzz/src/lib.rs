//! What the fuzz targets assert. Each function takes any bytes; a panic in it is a finding.
//!
//! Beyond "never panics": a page is the sum of its lines, a series that stands still gains nothing, an engine never
//! gains more samples than its page counts, and what was decoded is encoded to the same bytes again.

pub mod delivery;
pub mod identity;

use plimsoll_agent::{
    engines::{EnginePage, EngineTracker, EngineUpdate, read_page},
    exposition::{Entry, Limits, Sample, read},
};
use plimsoll_common::{
    engine::EngineKind,
    histogram::LatencyHistogram,
    wire::{FrameDecoder, FrameEncoder, Message},
};

/// Between two pages of one input of [`pages`].
pub const NEXT_PAGE: u8 = 0;

/// Reads bytes as a metrics page. Each line must be read as it is read alone, whatever stands around it.
pub fn exposition(data: &[u8]) {
    let limits = Limits::default();
    let Ok(mut lines) = read(data, limits) else { return };
    for entry in lines.by_ref() {
        if let Entry::Sample(sample) = entry {
            labels(&sample);
        }
    }
    let whole = (lines.samples() as u64, lines.skipped().malformed);
    let (mut samples, mut malformed) = (0, 0);
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(mut lines) = read(line, limits) else { panic!("a line is longer than its page") };
        lines.by_ref().for_each(drop);
        samples += lines.samples() as u64;
        malformed += lines.skipped().malformed;
    }
    assert_eq!(whole, (samples, malformed), "a page is the sum of its lines");
    let narrow = Limits { page_bytes: 1 << 20, line_bytes: 32, series: 3, labels: 2 };
    if let Ok(mut lines) = read(data, narrow) {
        assert!(lines.by_ref().filter_map(Entry::into_sample).count() <= narrow.series);
    }
}

/// Labels can be found by their names, and cut out without a loss.
fn labels(sample: &Sample<'_>) {
    assert!(!sample.name.is_empty());
    let raw = sample.labels.raw();
    for label in sample.labels.iter() {
        let found = sample.labels.get(label.name).expect("a label that is there");
        assert_eq!(found.raw(), label.value.raw());
        assert!(label.value.text().len() <= label.value.raw().len());
        let (before, after) = sample.labels.around(label.name);
        assert!(before.len() + after.len() < raw.len());
        assert!(raw.starts_with(before) && raw.trim_end().ends_with(after.trim_end()));
    }
}

/// Reads bytes as one or more pages of one engine, one after the other, and follows the engine. An empty page stands for
/// an engine that is gone.
pub fn pages(kind: Option<&str>, data: &[u8]) {
    let kind = kind.map(|name| EngineKind::from_name(name).expect("a known engine"));
    let mut tracker = EngineTracker::new();
    for bytes in data.split(|byte| *byte == NEXT_PAGE).take(8) {
        if bytes.is_empty() {
            tracker.absent();
            continue;
        }
        let Ok(page) = read_page(kind, bytes, Limits::default()) else { continue };
        well_formed(&page);
        let update = tracker.observe(&page);
        assert!(gained(&update) <= counted(&page), "more samples were gained than the page counts");
        let again = tracker.observe(&page);
        assert_eq!((gained(&again), again.delta.resets), (0, 0), "a page that stands still gains nothing");
    }
}

fn well_formed(page: &EnginePage) {
    for series in page.histograms.values().flat_map(|family| family.values()) {
        let Some(counts) = &series.counts else { continue };
        assert_eq!(counts.buckets.len(), series.edges.len() + 1);
        assert!(series.edges.is_sorted_by(|a, b| a < b) && counts.sum.is_finite());
    }
}

fn counted(page: &EnginePage) -> u64 {
    let series = page.histograms.values().flat_map(|family| family.values());
    let counts = series.filter_map(|series| series.counts.as_ref());
    counts.flat_map(|counts| &counts.buckets).fold(0, |sum, n| sum.saturating_add(*n))
}

fn gained(update: &EngineUpdate) -> u64 {
    let buckets = update.delta.histograms.iter().flat_map(|delta| &delta.buckets);
    buckets.fold(0, |sum, (_, n)| sum.saturating_add(*n))
}

/// Reads bytes as HdrHistogram V2, plain or deflated; what was read is written and read back the same.
pub fn histogram_v2(data: &[u8]) {
    check_v2(data);
    // A deflated payload is hardly ever found by mutation: give it the bytes as they are once they are inflated.
    let mut deflated = 0x1c84_9304_u32.to_be_bytes().to_vec();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    if std::io::Write::write_all(&mut zlib, data).is_ok()
        && let Ok(body) = zlib.finish()
    {
        deflated.extend((body.len() as u32).to_be_bytes());
        deflated.extend(body);
        check_v2(&deflated);
    }
}

fn check_v2(data: &[u8]) {
    let Ok(histogram) = LatencyHistogram::from_v2(data) else { return };
    // Counts that add up to more than 2^64 are cut, and then can't be written the same.
    if histogram.count() == u64::MAX {
        return;
    }
    let bytes = histogram.to_v2().expect("a histogram of the fleet's layout");
    let again = LatencyHistogram::from_v2(&bytes).expect("what was written");
    assert!(histogram.nonzero().eq(again.nonzero()), "counts survive");
}

/// Decodes bytes as a frame; what was decoded is encoded and decoded to the same bytes.
pub fn wire_frame(data: &[u8]) {
    let (Ok(mut decoder), Ok(mut encoder)) = (FrameDecoder::new(), FrameEncoder::new()) else { return };
    let Ok(frame) = decoder.decode(data) else { return };
    if let Message::Report(report) = &frame.message {
        report.histograms.iter().for_each(drop);
    }
    let Ok(bytes) = encoder.encode(&frame.message, frame.age_ms) else { return };
    let again = decoder.decode(&bytes).expect("what was encoded");
    let bytes_again = encoder.encode(&again.message, again.age_ms).expect("what was decoded");
    assert_eq!(bytes, bytes_again, "a message survives");
}
