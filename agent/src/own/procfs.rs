//! Single figures from files of /proc, at one system call each: the files stay open, and only their beginnings are read.

use std::{fs::File, os::unix::fs::FileExt};

/// More than the beginnings that are looked at.
const ROOM: usize = 512;

/// A file of /proc.
#[derive(Debug)]
pub(super) struct ProcFile(Option<File>);

impl ProcFile {
    /// One that cannot be opened has nothing to tell.
    pub(super) fn open(path: &str) -> Self {
        let file = File::open(path).inspect_err(|error| tracing::warn!("{path} can't be opened: {error}"));
        Self(file.ok())
    }

    /// Reads its beginning anew.
    pub(super) fn read<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut room = [0; ROOM];
        let length = self.0.as_ref()?.read_at(&mut room, 0).ok()?;
        // Cut where it may be in the middle of a character; all that is looked at is ASCII.
        let told = &room[..length];
        let text =
            std::str::from_utf8(told).or_else(|error| std::str::from_utf8(&told[..error.valid_up_to()]));
        text.ok().and_then(read)
    }
}

/// Resident pages, from `/proc/self/statm`.
pub(super) fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Ticks in which the host's processors were busy, and all ticks, since it booted; from `/proc/stat`.
pub(super) fn host_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut words = stat.lines().next()?.split_ascii_whitespace();
    if words.next() != Some("cpu") {
        return None;
    }
    // User, nice, system, idle, waiting for IO, interrupts, soft interrupts, stolen; guests are part of user and nice.
    let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)?.saturating_add(*ticks.get(4)?);
    let all = ticks.iter().copied().fold(0, u64::saturating_add);
    Some((all.saturating_sub(idle), all))
}

/// Memory of the host and what of it is available to new programs, bytes; from `/proc/meminfo`.
pub(super) fn host_memory(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').split_ascii_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_are_found_where_the_kernel_writes_them() {
        assert_eq!(resident_pages("22512 3918 3436 2500 0 1200 0\n"), Some(3918));
        let stat = "cpu  100 5 50 1000 20 3 2 0 7 0\ncpu0 100 5 50 1000 20 3 2 0 7 0\nintr 1\n";
        assert_eq!(host_ticks(stat), Some((160, 1180)));
        let meminfo = "MemTotal:       24684084 kB\nMemFree:         1000 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(host_memory(meminfo), Some((24_684_084 * 1024, 20_000_000 * 1024)));
    }

    #[test]
    fn a_file_is_read_anew_each_time_and_a_missing_one_tells_nothing() {
        let uptime = ProcFile::open("/proc/self/statm");
        assert!(uptime.read(resident_pages).is_some() && uptime.read(resident_pages).is_some());
        assert_eq!(ProcFile::open("/proc/no-such-file").read(resident_pages), None);
    }

    proptest! {
        // Invariant: no text makes a parser panic, and busy ticks are never more than all.
        #[test]
        fn any_text_is_answered(text in "(cpu|MemTotal:|MemAvailable:|\\d{0,20}|[ \n\\PC]){0,30}") {
            let _ = resident_pages(&text);
            let _ = host_memory(&text);
            if let Some((busy, all)) = host_ticks(&text) {
                prop_assert!(busy <= all);
            }
        }
    }
}
