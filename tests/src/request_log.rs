//! The emulators' exact record of the requests that ended.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

/// One request that ended, with exactly the values that the engine's histograms took in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ended {
    /// Arrival, seconds since 1970.
    pub arrival_unix_s: f64,
    /// ISL.
    pub prompt_tokens: u64,
    /// Of these, found in the prefix cache.
    pub cached_tokens: u64,
    /// OSL.
    pub output_tokens: u64,
    /// Time to first token, seconds; `None` where none came.
    pub ttft_s: Option<f64>,
    /// In the queue, seconds.
    pub queue_s: Option<f64>,
    /// First scheduled to first token, seconds.
    pub prefill_s: Option<f64>,
    /// First to last token, seconds.
    pub decode_s: Option<f64>,
    /// First scheduled to last token, seconds.
    pub inference_s: Option<f64>,
    /// Arrival to end, seconds.
    pub e2e_s: f64,
    /// Mean time per output token, seconds.
    pub tpot_s: Option<f64>,
    /// Every inter-token latency, seconds, in order.
    pub itl_s: Vec<f64>,
    /// How often it was preempted.
    pub preemptions: u64,
    /// `stop`, `length` or `abort`.
    pub finish_reason: String,
}

impl Ended {
    /// When the first token came, seconds since 1970.
    #[must_use]
    pub fn first_token_unix_s(&self) -> Option<f64> {
        self.ttft_s.map(|ttft| self.arrival_unix_s + ttft)
    }

    /// Every inter-token latency with the time, seconds since 1970, at which the later token came.
    pub fn timed_itl(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let mut at = self.first_token_unix_s().unwrap_or(self.arrival_unix_s);
        self.itl_s.iter().map(move |itl| {
            at += itl;
            (at, *itl)
        })
    }
}

/// Reads a log as it grows.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    read: u64,
}

impl Tail {
    /// Begins at the begin. The file need not exist yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// The requests that ended since the last call. A line that is not whole yet is left for the next.
    ///
    /// # Errors
    /// When the file can't be read or a line is no record.
    pub fn news(&mut self) -> anyhow::Result<Vec<Ended>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("{} can't be read", self.path.display()));
            }
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let parsed = lines.map(|line| {
            serde_json::from_slice(line).with_context(|| {
                format!("{}: no record: {}", self.path.display(), String::from_utf8_lossy(line))
            })
        });
        parsed.collect()
    }
}

/// The whole log.
///
/// # Errors
/// When it can't be read or a line is no record.
pub fn read(path: &Path) -> anyhow::Result<Vec<Ended>> {
    Tail::new(path.to_owned()).news()
}

/// The sample of rank ⌈share·n⌉; `None` where there is none. The samples need not be in order.
#[must_use]
pub fn percentile(samples: &mut [f64], share: f64) -> Option<f64> {
    samples.sort_unstable_by(f64::total_cmp);
    let rank = ((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len().max(1));
    samples.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LINE: &str = r#"{"id":"x","model":"m","arrival_unix_s":100.0,"arrival_s":1.0,"prompt_tokens":5,
        "cached_tokens":0,"output_tokens":3,"max_tokens":3,"ttft_s":0.5,"queue_s":0.1,"prefill_s":0.4,
        "decode_s":0.3,"inference_s":0.7,"e2e_s":0.8,"tpot_s":0.15,"itl_s":[0.1,0.2],"preemptions":0,
        "finish_reason":"length"}"#;

    #[test]
    fn only_whole_lines_are_read_and_none_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        let line = LINE.replace('\n', " ");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.news().unwrap(), []);
        let mut file = File::create(&path).unwrap();
        write!(file, "{line}\n{}", &line[..40]).unwrap();
        let news = tail.news().unwrap();
        assert_eq!(news.len(), 1);
        assert_eq!(tail.news().unwrap(), []);
        writeln!(file, "{}", &line[40..]).unwrap();
        assert_eq!(tail.news().unwrap(), news);
        assert_eq!(read(&path).unwrap().len(), 2);
        let times: Vec<_> = news[0].timed_itl().map(|(at, _)| (at * 10.0).round()).collect();
        assert_eq!(times, [1006.0, 1008.0]);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let of = |samples: &mut [f64], share| percentile(samples, share).map(|value| value as u64);
        assert_eq!(of(&mut samples, 0.5), Some(50));
        assert_eq!(of(&mut samples, 0.99), Some(99));
        assert_eq!(of(&mut samples, 0.0), Some(1));
        assert_eq!(of(&mut [], 0.5), None);
    }
}
