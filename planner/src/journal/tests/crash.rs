//! Kills and damage: the journal opens, or makes room for one that does.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::*;

/// Set for the process that is to be killed: its folder.
const CHILD: &str = "PLIMSOLL_JOURNAL_TEST_CHILD";

/// The process that is to be killed: it writes for as long as it lives, and says how many steps are written.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let limits = Limits { checkpoint_every: Duration::from_secs(200), ..Limits::default() };
    let (mut writer, restored) = open(Path::new(&dir), limits, START);
    let mut from = 0;
    let mut controller = match restored {
        Some(restored) => {
            from = (restored.last.0 - START.0) / STEP.0 + 1;
            restored.controller(basis().spec, Tuning::default()).0
        }
        None => controller(),
    };
    writer.begin(at(from), basis());
    // A process that nobody kills ends by itself.
    for n in from..from + 5_000 {
        if writer.checkpoint_due(at(n)) {
            writer.checkpoint(at(n), controller.checkpoint());
        }
        let step = plain(&mut controller, n);
        writer.record(at(n), &seen(n), &step);
        println!("written {}", writer.stats().totals().steps_written);
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut least = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::crash::child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut written = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(count) = line.strip_prefix("written ") {
                written = count.parse().unwrap();
            }
            if written >= 7 + 11 * round {
                // SIGKILL, wherever its other thread is.
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        least += written;
        let done = replayed(dir.path());
        assert_eq!(done.differ, 0, "{done:?}");
        assert!(done.agree + done.skipped >= least, "{least} were written: {done:?}");
    }
    let (writer, restored) = open(dir.path(), Limits::default(), at(10_000));
    assert!(restored.is_some() && writer.stats().totals().set_aside == 0);
}

/// A journal of some steps, closed, as bytes.
fn written() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut controller) = begun(dir.path(), Limits::default());
    drive(&mut writer, &mut controller, 0..40);
    drop(writer);
    std::fs::read(dir.path().join(store::FILE)).unwrap()
}

/// Opens a folder with such a file, goes on for some steps, and reads what came of it.
fn goes_on(dir: &Path, file: &[u8]) -> Totals {
    std::fs::write(dir.join(store::FILE), file).unwrap();
    let (mut writer, restored) =
        open(dir, Limits { checkpoint_every: Duration::from_secs(50), ..Limits::default() }, at(100));
    let mut controller = match restored {
        Some(restored) => restored.controller(basis().spec, Tuning::default()).0,
        None => controller(),
    };
    writer.begin(at(100), basis());
    drive(&mut writer, &mut controller, 100..112);
    let stats = writer.stats();
    drop(writer);
    stats.totals()
}

#[test]
fn a_file_that_was_cut_anywhere_is_used_or_set_aside() {
    let whole = written();
    let mut aside = 0;
    // At the ends of pages, in the middle of pages, and within the first.
    let cuts =
        (0..24).map(|n| whole.len() * n / 24 + n * 97).chain([0, 1, 15, 16, 99, 100, 4_095, 4_096, 4_097]);
    for cut in cuts {
        let dir = tempfile::tempdir().unwrap();
        let totals = goes_on(dir.path(), &whole[..cut.min(whole.len())]);
        assert!(totals.steps_written >= 3, "cut at {cut}: {totals:?}");
        assert_eq!(dir.path().join("journal.db.damaged").exists(), totals.set_aside > 0, "cut at {cut}");
        aside += totals.set_aside;
        let journal = Journal::open(dir.path()).unwrap();
        let last = journal.segments().unwrap().last().copied().unwrap();
        assert!(!journal.steps(&last).unwrap().is_empty(), "cut at {cut}");
    }
    assert!(aside >= 20, "most cuts can be noticed: {aside}");
}

#[test]
fn what_is_no_journal_is_set_aside_and_only_the_last_such_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3_u8 {
        let totals = goes_on(dir.path(), &vec![b'x' + n; 9_000]);
        assert_eq!((totals.set_aside, totals.failing), (1, false), "{totals:?}");
        let _ = std::fs::remove_file(dir.path().join("journal.db-wal"));
    }
    let aside = std::fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).count();
    assert_eq!(aside, 1);
    assert_eq!(std::fs::read(dir.path().join("journal.db.damaged")).unwrap(), vec![b'z'; 9_000]);
}

#[test]
fn bits_that_flip_are_never_taken_for_what_was_learned_or_decided() {
    let whole = written();
    let honest: Vec<Vec<u8>> = {
        let mut controller = controller();
        (0..40).map(|n| bytes(&plain(&mut controller, n))).collect()
    };
    for n in 0..24_usize {
        let dir = tempfile::tempdir().unwrap();
        let mut file = whole.clone();
        // Behind the head of the file, which says what it is.
        let place = 4_096 + (n * 7_919_353) % (file.len() - 4_096);
        file[place] ^= 1 << (n % 8);
        std::fs::write(dir.path().join(store::FILE), &file).unwrap();
        let Ok(journal) = Journal::open(dir.path()) else { continue };
        for segment in journal.segments().unwrap_or_default() {
            for step in journal.steps(&segment).unwrap_or_default() {
                let number = step.at.0.saturating_sub(START.0) / STEP.0;
                // A time is not in the checksum: the page that it stands in may lie.
                if step.seq == number + 1 && number < 40 {
                    assert_eq!(step.decided, honest[number as usize], "bit {n}");
                }
            }
        }
        assert!(goes_on(dir.path(), &file).steps_written > 0, "bit {n}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_costs_nothing_but_the_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "not a folder").unwrap();
    let (mut writer, mut controller) = begun(&path, Limits::default());
    drive(&mut writer, &mut controller, 0..5);
    let stats = writer.stats();
    drop(writer);
    let totals = stats.totals();
    assert!(totals.failing && totals.errors >= 1, "{totals:?}");
    assert_eq!((totals.steps_written, totals.steps_dropped), (0, 5));
    assert!(matches!(Journal::open(&path), Err(JournalError::Missing(_))));
}
