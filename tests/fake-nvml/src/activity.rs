//! Activity files: emulated engines say here what their GPUs do.
//!
//! A line is `<gpu uuid> util=<percent, 0 to 100> mem_used=<bytes>` and optionally `pid=<process id>`; other keys and
//! lines that make no sense are ignored. Within one file the last line of a GPU counts. Where the source is a folder,
//! every file in it is read, save those whose name begins with `.` or ends in `.tmp`: write `.tmp`, then rename. Shares of
//! several files on one GPU are added. A GPU that no line names is idle.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::clock;
use crate::state::Activity;

/// The source is looked at no more often than this.
const LOOK_EVERY_NS: u64 = 100_000_000;
/// At most this many files of a folder are read, in the order of their names.
const MAX_FILES: usize = 256;
/// At most this much of a file is read.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// By UUID.
type Activities = BTreeMap<String, Activity>;

/// A file or folder that is read again when it changes.
#[derive(Debug)]
pub(crate) struct ActivitySource {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looked_ns: Option<u64>,
    files: Vec<(PathBuf, Option<SystemTime>, u64)>,
    activities: Activities,
}

impl ActivitySource {
    /// A source that need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: Mutex::default() }
    }

    /// What the engines do on this GPU; idle where no line names it.
    pub(crate) fn of(&self, uuid: &str) -> Activity {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ns = clock::monotonic_ns();
        if seen.looked_ns.is_none_or(|looked_ns| now_ns.saturating_sub(looked_ns) >= LOOK_EVERY_NS) {
            seen.looked_ns = Some(now_ns);
            let files = list(&self.path);
            if files != seen.files {
                seen.activities = read(&files);
                seen.files = files;
            }
        }
        seen.activities.get(uuid).cloned().unwrap_or_default()
    }
}

fn list(path: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let mut files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => {
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_source(path)).collect()
        }
        Err(_) => vec![path.to_owned()],
    };
    files.sort();
    files.truncate(MAX_FILES);
    let stamped = files.into_iter().filter_map(|path| {
        let about = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some((path, about.modified().ok(), about.len()))
    });
    stamped.collect()
}

fn is_source(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| !name.starts_with('.') && !name.ends_with(".tmp"))
}

fn read(files: &[(PathBuf, Option<SystemTime>, u64)]) -> Activities {
    let mut sum = Activities::new();
    for (path, ..) in files {
        let mut bytes = Vec::new();
        let Ok(file) = File::open(path) else { continue };
        if file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).is_err() {
            continue;
        }
        for (uuid, activity) in parse(&String::from_utf8_lossy(&bytes)) {
            let total = sum.entry(uuid).or_default();
            total.utilization_percent += activity.utilization_percent;
            total.memory_used_bytes = total.memory_used_bytes.saturating_add(activity.memory_used_bytes);
            total.processes.extend(activity.processes);
        }
    }
    sum
}

fn parse(text: &str) -> Activities {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, Activity)> {
    let mut words = line.split_whitespace();
    let uuid = words.next().filter(|uuid| uuid.starts_with("GPU-"))?;
    let (mut utilization, mut memory, mut pid) = (None, None, None);
    for word in words {
        match word.split_once('=')? {
            ("util", value) => utilization = Some(value.parse().ok()?),
            ("mem_used", value) => memory = Some(value.parse().ok()?),
            ("pid", value) => pid = Some(value.parse().ok()?),
            _ => {}
        }
    }
    let (utilization_percent, memory_used_bytes): (f64, u64) = (utilization?, memory?);
    if !(0.0..=100.0).contains(&utilization_percent) {
        return None;
    }
    let processes = pid.into_iter().map(|pid| (pid, memory_used_bytes)).collect();
    Some((uuid.to_owned(), Activity { utilization_percent, memory_used_bytes, processes }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_and_nonsense_is_ignored() {
        let activities = parse(
            "# comment\nGPU-a util=40 mem_used=1000 pid=7\nGPU-b util=101 mem_used=1\nGPU-c util=5\nGPU-d util=x mem_used=1\n\
             util=1 mem_used=2\nGPU-e util=12.5 mem_used=3 phase=decode\nGPU-a util=60 mem_used=2000\nGPU-f util=nan mem_used=1\n",
        );
        assert_eq!(activities.keys().collect::<Vec<_>>(), ["GPU-a", "GPU-e"]);
        assert_eq!(activities["GPU-a"].memory_used_bytes, 2000);
        assert!(activities["GPU-a"].processes.is_empty());
    }

    #[test]
    fn files_of_a_folder_are_added() {
        let folder = std::env::temp_dir().join(format!("plimsoll-activity-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, line) in [
            ("one", "GPU-a util=30 mem_used=5 pid=1\n"),
            ("two", "GPU-a util=80 mem_used=6 pid=2\n"),
            ("three.tmp", "GPU-a util=1 mem_used=100\n"),
            (".four", "GPU-b util=1 mem_used=1\n"),
        ] {
            fs::write(folder.join(name), line).unwrap();
        }
        let source = ActivitySource::new(folder.clone());
        let activity = source.of("GPU-a");
        let idle = source.of("GPU-b");
        let missing = ActivitySource::new(folder.join("missing")).of("GPU-a");
        fs::remove_dir_all(&folder).unwrap();
        assert!((activity.utilization_percent - 110.0).abs() < 1e-9, "readings clamp it, not the source");
        assert_eq!((activity.memory_used_bytes, activity.processes), (11, vec![(1, 5), (2, 6)]));
        assert_eq!(idle, Activity::default());
        assert_eq!(missing, Activity::default());
    }

    proptest! {
        // Invariant: no text makes the parser panic or yields an impossible share.
        #[test]
        fn any_text_is_answered(text in "(GPU-[a-z] (util=|mem_used=|pid=)?[-0-9.ex]{0,25} ?\n?|\\PC){0,60}") {
            for activity in parse(&text).values() {
                prop_assert!((0.0..=100.0).contains(&activity.utilization_percent));
            }
        }
    }
}
