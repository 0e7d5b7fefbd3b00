//! What a decoded message must obey before anybody acts on it.

use super::{
    error::WireError,
    hello::{Gap, Hello, MAX_GAP_WINDOWS, Token},
    inventory::Inventory,
    report::Report,
};
use crate::histogram::{MAX_BUCKET_EDGES, layout::CELLS};

/// The most GPUs a node may report (16 GPUs with 7 MIG instances each are 112).
pub const MAX_GPUS: usize = 256;
/// The most engines a node may report.
pub const MAX_ENGINES: usize = 256;
/// The most `le` layouts an inventory may carry.
pub const MAX_LAYOUTS: usize = 1024;
/// The longest text field in a message, bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Marker for messages that check themselves against the limits of the protocol.
pub trait Limits {
    /// Checks counts, lengths and references.
    ///
    /// # Errors
    /// [`WireError::Refused`] naming the limit that is broken.
    fn check(&self) -> Result<(), WireError>;
}

fn at_most(what: &str, n: usize, limit: usize) -> Result<(), WireError> {
    if n > limit {
        return Err(WireError::Refused(format!("{n} {what}, at most {limit} are allowed")));
    }
    Ok(())
}

impl Limits for Hello {
    fn check(&self) -> Result<(), WireError> {
        at_most("bytes in a version", self.version.len(), MAX_TEXT_BYTES)?;
        at_most(
            "bytes in a token",
            self.token.as_ref().map_or(0, |token| token.as_bytes().len()),
            Token::MAX_BYTES,
        )
    }
}

impl Limits for Gap {
    fn check(&self) -> Result<(), WireError> {
        let (first, last) = (self.first.0, self.last.0);
        if first == 0 || first > last || last - first >= MAX_GAP_WINDOWS {
            return Err(WireError::Refused(format!(
                "windows {first}..={last} are no gap of 1 to {MAX_GAP_WINDOWS} windows"
            )));
        }
        Ok(())
    }
}

impl Limits for Inventory {
    fn check(&self) -> Result<(), WireError> {
        at_most("GPUs", self.gpus.len(), MAX_GPUS)?;
        at_most("engines", self.engines.len(), MAX_ENGINES)?;
        at_most("bucket layouts", self.layouts.len(), MAX_LAYOUTS)?;
        for edges in &self.layouts {
            at_most("bucket edges in a layout", edges.len(), MAX_BUCKET_EDGES)?;
        }
        for domain in self.gpus.iter().filter_map(|gpu| gpu.domain.as_ref()) {
            at_most("bytes in an NVLink domain's name", domain.id.len(), MAX_TEXT_BYTES)?;
        }
        for engine in &self.engines {
            at_most("GPUs of an engine", engine.gpus.len(), MAX_GPUS)?;
            at_most("bytes in an engine's URL", engine.url.len(), MAX_TEXT_BYTES)?;
            at_most("bytes in an engine's kind", engine.kind.len(), MAX_TEXT_BYTES)?;
        }
        if self.generation.0 == 0 {
            return Err(WireError::Refused("an inventory's generation counts from 1".to_owned()));
        }
        Ok(())
    }
}

impl Limits for Report {
    fn check(&self) -> Result<(), WireError> {
        at_most("GPU rows", self.gpus.state.len(), MAX_GPUS)?;
        at_most("engine rows", self.engines.state.len(), MAX_ENGINES)?;
        if self.seq.0 == 0 || self.first_seq().0 == 0 || self.first_seq() > self.seq {
            return Err(WireError::Refused(format!(
                "windows {}..={} are no range from 1",
                self.first_seq().0,
                self.seq.0
            )));
        }
        let (mut reader, mut cells) = (self.histograms.reader(), Vec::new());
        while let Some(head) = reader.next(&mut cells) {
            let head = head.map_err(|error| WireError::Refused(error.to_owned()))?;
            at_most("as a histogram's engine", head.engine, MAX_ENGINES - 1)?;
            at_most("as a histogram's layout", head.layout, MAX_LAYOUTS)?;
            if head.layout == 0 && cells.last().is_some_and(|(cell, _)| *cell >= CELLS) {
                return Err(WireError::Refused("a histogram's cell is beyond the fleet's layout".to_owned()));
            }
        }
        Ok(())
    }
}
