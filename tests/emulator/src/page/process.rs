//! The families that every Python server shows of its interpreter and its process. The process is this one; the
//! interpreter's are those of an interpreter that has collected nothing.

use crate::page::text::Page;

/// Clock ticks in a second, as Linux counts a process's time on every architecture of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes every interpreter and process family; `started` in seconds since 1970.
pub(crate) fn write(page: &mut Page, started: f64) {
    for (name, help) in [
        ("python_gc_objects_collected_total", "Objects that the garbage collector freed."),
        ("python_gc_objects_uncollectable_total", "Objects that the garbage collector could not free."),
        ("python_gc_collections_total", "Runs of the garbage collector."),
    ] {
        page.family(name, "counter", help);
        for generation in ["0", "1", "2"] {
            page.sample(name, &[("generation", generation)], 0.0);
        }
    }
    let platform = [
        ("implementation", "CPython"),
        ("major", "3"),
        ("minor", "12"),
        ("patchlevel", "1"),
        ("version", "3.12.1"),
    ];
    page.family("python_info", "gauge", "The interpreter.");
    page.sample("python_info", &platform, 1.0);

    let process = Process::read();
    for (name, kind, help, value) in [
        ("process_virtual_memory_bytes", "gauge", "Virtual memory, bytes.", process.virtual_bytes),
        ("process_resident_memory_bytes", "gauge", "Resident memory, bytes.", process.resident_bytes),
        ("process_start_time_seconds", "gauge", "Start of the process, seconds since 1970.", Some(started)),
        ("process_cpu_seconds_total", "counter", "User and system CPU time, seconds.", process.cpu_seconds),
        ("process_open_fds", "gauge", "Open file descriptors.", process.open_files),
        ("process_max_fds", "gauge", "File descriptors that may be open.", process.max_files),
    ] {
        page.family(name, kind, help);
        // What the platform does not tell is left out: absent is not zero.
        if let Some(value) = value {
            page.sample(name, &[], value);
        }
    }
}

/// User and system time of this process, seconds; zero where the platform does not tell.
pub(crate) fn cpu_seconds_of_this() -> f64 {
    Process::read().cpu_seconds.unwrap_or(0.0)
}

#[derive(Debug, Default)]
struct Process {
    virtual_bytes: Option<f64>,
    resident_bytes: Option<f64>,
    cpu_seconds: Option<f64>,
    open_files: Option<f64>,
    max_files: Option<f64>,
}

impl Process {
    /// What `/proc` tells; nothing where there is none.
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(value.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? * 1_024.0)
        };
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let max_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Self {
            virtual_bytes: kibibytes("VmSize:"),
            resident_bytes: kibibytes("VmRSS:"),
            cpu_seconds: cpu_seconds(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default()),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            max_files: max_files.and_then(|line| line.split_whitespace().next()?.parse().ok()),
        }
    }
}

/// User and system time from `/proc/self/stat`: the 12th and 13th fields behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_ugly_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
