//! Folders as engines and operators treat them.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use plimsoll_common::{engine::DistributionKind, histogram::layout::cell_of};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;

fn row(e2e: f64) -> String {
    format!("{{\"request_parameters\": \"{{}}\", \"e2e_latency\": {e2e:.6}}}\n")
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

struct World {
    dir: TempDir,
    folder: Folder,
    seen: Vec<u64>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        Self { dir, folder, seen: Vec::new(), now: Instant::now() }
    }

    fn looked() -> Self {
        let mut world = Self::new();
        world.poll();
        world
    }

    fn hour(&self, hour: u32) -> PathBuf {
        self.dir.path().join(format!("sglang-request-metrics-20261123_{hour:02}.log"))
    }

    fn poll(&mut self) -> Polled {
        let polled = self.folder.poll(self.now).unwrap();
        if let Some(cells) = polled.samples.get(DistributionKind::E2e) {
            for (cell, n) in cells.cells() {
                (0..n).for_each(|_| self.seen.push(u64::from(cell)));
            }
        }
        polled
    }

    /// How many records with this latency, in whole milliseconds, were seen.
    fn times(&self, millis: u64) -> usize {
        let cell = u64::from(cell_of(millis * 1000));
        self.seen.iter().filter(|seen| **seen == cell).count()
    }
}

#[tokio::test]
async fn what_was_there_before_is_history() {
    let mut world = World::new();
    append(&world.hour(1), row(1.0).as_bytes());
    append(&world.hour(2), b"{\"half\": ");
    assert_eq!(world.poll().records, 0);
    append(&world.hour(1), row(2.0).as_bytes());
    append(&world.hour(2), format!("1}}\n{}", row(3.0)).as_bytes());
    let polled = world.poll();
    assert_eq!(
        (polled.records, polled.malformed),
        (2, 0),
        "the rest of a line that began before is history too"
    );
    assert_eq!((world.times(1000), world.times(2000), world.times(3000)), (0, 1, 1));
}

#[tokio::test]
async fn a_folder_that_appears_later_is_all_news() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later");
    let mut folder = Folder::new(path.clone());
    let error = folder.poll(Instant::now()).unwrap_err();
    assert!(matches!(error, FolderError::Absent(_)) && error.to_string().contains("later"), "{error}");
    fs::create_dir(&path).unwrap();
    append(&path.join("perf_metrics-server-host-1-20261123T000000Z.jsonl"),
        b"{\"request_id\":1,\"perf_metrics\":{\"timing_metrics\":{\"arrival_time\":1.0,\"last_token_time\":2.0}},\"status\":\"complete\"}\n");
    assert_eq!(folder.poll(Instant::now()).unwrap().records, 1);
}

#[tokio::test]
async fn a_line_counts_once_it_ends() {
    let mut world = World::looked();
    let path = world.hour(1);
    append(&path, &row(1.0).as_bytes()[..20]);
    assert_eq!(world.poll().records, 0);
    append(&path, &row(1.0).as_bytes()[20..]);
    assert_eq!(world.poll().records, 1);
    assert_eq!(world.poll().records, 0);
}

#[tokio::test]
async fn the_next_hour_s_file_is_read_from_its_begin() {
    let mut world = World::looked();
    append(&world.hour(1), row(1.0).as_bytes());
    world.poll();
    append(&world.hour(1), row(2.0).as_bytes());
    append(&world.hour(2), row(3.0).as_bytes());
    assert_eq!(world.poll().records, 2);
}

#[tokio::test]
async fn a_truncated_file_begins_again() {
    let mut world = World::looked();
    let path = world.hour(1);
    append(&path, format!("{}{}", row(1.0), row(2.0)).as_bytes());
    world.poll();
    File::create(&path).unwrap();
    append(&path, row(3.0).as_bytes());
    assert_eq!(world.poll().records, 1);
    assert_eq!(world.times(3000), 1);
}

#[tokio::test]
async fn renamed_and_deleted_files_are_read_to_their_end() {
    let mut world = World::looked();
    let path = world.hour(1);
    let mut engine = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    engine.write_all(row(1.0).as_bytes()).unwrap();
    world.poll();
    // The engine writes on under the old name's file, and a new file takes the name.
    fs::rename(&path, world.dir.path().join("old.1")).unwrap();
    engine.write_all(row(2.0).as_bytes()).unwrap();
    append(&path, row(3.0).as_bytes());
    assert_eq!(world.poll().records, 2);
    engine.write_all(row(4.0).as_bytes()).unwrap();
    fs::remove_file(world.dir.path().join("old.1")).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(world.poll().records, 1);
    assert_eq!([1000, 2000, 3000, 4000].map(|millis| world.times(millis)), [1, 1, 1, 1]);
    // After a while without growth they are let go, and what is written then is nobody's.
    world.now += Duration::from_secs(61);
    world.poll();
    engine.write_all(row(5.0).as_bytes()).unwrap();
    assert_eq!(world.poll().records, 0);
}

#[tokio::test]
async fn only_request_logs_are_read() {
    let mut world = World::looked();
    for name in ["notes.log", "sglang-request-metrics-20261123_01.log.gz", "perf_metrics-a.json"] {
        append(&world.dir.path().join(name), row(1.0).as_bytes());
    }
    let outside = tempfile::NamedTempFile::new().unwrap();
    append(outside.path(), row(1.0).as_bytes());
    std::os::unix::fs::symlink(outside.path(), world.hour(5)).unwrap();
    fs::create_dir(world.hour(6)).unwrap();
    assert_eq!(world.poll().records, 0);
}

#[tokio::test]
async fn long_lines_are_read_where_they_stand() {
    let mut world = World::looked();
    let path = world.hour(1);
    let long = row(7.0).replace("{}", &"x".repeat(3 << 20));
    append(&path, format!("{}{long}{}", row(1.0), row(2.0)).as_bytes());
    assert_eq!(world.poll().records, 3);
    assert_eq!(world.times(7000), 1);
    // A sparse line over the limit costs nothing but its count.
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() + file::MAX_LINE_BYTES + 1).unwrap();
    append(&path, format!("\n{}", row(3.0)).as_bytes());
    let (mut dropped, mut records) = (0, 0);
    for _ in 0..20 {
        let polled = world.poll();
        (dropped, records) = (dropped + polled.dropped, records + polled.records);
        if polled.behind_bytes == 0 {
            break;
        }
    }
    assert_eq!((dropped, records), (1, 1));
}

#[tokio::test]
async fn what_is_no_record_is_counted_and_no_more() {
    let mut world = World::looked();
    append(&world.hour(1), b"\n  \n\xff\xfe\n{\"e2e_latency\": -1.0}\n[[[[\n{}\n");
    append(&world.hour(1), row(1.0).as_bytes());
    let polled = world.poll();
    assert_eq!((polled.records, polled.skipped, polled.malformed), (1, 1, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Invariant: however a log is cut into writes and looks, every record is counted exactly once.
    #[test]
    fn every_record_counts_once(
        lines in prop::collection::vec((1u64..9_000, 0usize..3), 1..40),
        cuts in prop::collection::vec(1usize..400, 1..60),
    ) {
        let mut world = World::looked();
        let mut text = Vec::new();
        for (millis, kind) in &lines {
            match kind {
                0 => text.extend_from_slice(b"no record\n"),
                // Longer than what is read at once, now and then.
                1 if millis % 50 == 0 => text.extend_from_slice(row(*millis as f64 / 1e3).replace("{}", &"y".repeat(70_000)).as_bytes()),
                _ => text.extend_from_slice(row(*millis as f64 / 1e3).as_bytes()),
            }
        }
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < text.len() {
            let long = if text.len() > 10_000 { 40 } else { 1 };
            let to = text.len().min(at + cuts.next().unwrap() * long);
            append(&world.hour(1), &text[at..to]);
            world.poll();
            at = to;
        }
        let mut want: Vec<u64> =
            lines.iter().filter(|(_, kind)| *kind > 0).map(|(millis, _)| u64::from(cell_of(millis * 1000))).collect();
        want.sort_unstable();
        world.seen.sort_unstable();
        prop_assert_eq!(&world.seen, &want);
    }

    /// Invariant: whatever is done to the files between two looks (appending, a new hour, renaming away), what had been
    /// written before each look is counted exactly once.
    #[test]
    fn rotation_loses_nothing(steps in prop::collection::vec((0u8..4, 1u64..9_000), 1..40)) {
        let mut world = World::looked();
        let (mut hour, mut renamed, mut want) = (1, 0, Vec::new());
        let mut unseen = false;
        for (step, millis) in steps {
            match step {
                0 => hour += 1,
                1 if world.hour(hour).exists() => {
                    // A file that came and went between two looks could not be seen.
                    if unseen {
                        world.poll();
                    }
                    renamed += 1;
                    fs::rename(world.hour(hour), world.dir.path().join(format!("gone.{renamed}"))).unwrap();
                }
                _ => {
                    unseen |= !world.hour(hour).exists();
                    append(&world.hour(hour), row(millis as f64 / 1e3).as_bytes());
                    want.push(u64::from(cell_of(millis * 1000)));
                }
            }
            if step != 2 {
                world.poll();
                unseen = false;
            }
        }
        world.poll();
        want.sort_unstable();
        world.seen.sort_unstable();
        prop_assert_eq!(&world.seen, &want);
    }
}
