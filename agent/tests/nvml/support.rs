//! The project's own NVML library, in processes that each see a machine of their own.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, OnceLock},
    time::Duration,
};

use plimsoll_agent::gpu::{self, GpuMonitor, GpuOptions, GpuReading, GpuSnapshot};

/// Long enough for a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const LIBRARY: &str = "PLIMSOLL_TEST_NVML_LIBRARY";
const SCENARIO: &str = "PLIMSOLL_FAKE_NVML_SCENARIO";
const CONTROL: &str = "PLIMSOLL_FAKE_NVML_CONTROL";
const CALL_LOG: &str = "PLIMSOLL_FAKE_NVML_CALL_LOG";

/// Declares checks that need a machine: each runs in a process of its own, since the library learns from the environment
/// which machine it shows, and a process can't change its environment safely.
macro_rules! on_machines {
    ($($name:ident on $scenario:expr => $check:path;)*) => {
        $(
            mod $name {
                #[test]
                fn parent() {
                    $crate::support::in_child(concat!(module_path!(), "::child"), $scenario);
                }

                #[tokio::test]
                #[ignore = "run by its parent in a process of its own"]
                async fn child() {
                    $check($crate::support::Machine::of_child()).await;
                }
            }
        )*
    };
}
pub(crate) use on_machines;

/// The library: the one that the environment names, or built once, since `cargo test` builds no cdylib of another package.
pub(crate) fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os(LIBRARY) {
            return given.into();
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "plimsoll-fake-nvml", "--message-format=json"]);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "plimsoll_fake_nvml")
            .filter_map(|message| message["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
            .find(|file| file.extension() == Some(OsStr::new("so")))
            .unwrap()
    })
}

/// A folder for a machine's files, deleted in the end.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn machine(&self) -> Machine {
        let (control, log) = (self.0.path().join("control"), self.0.path().join("calls.log"));
        Machine { library: library().to_owned(), control, log }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Runs an ignored test in a process that sees this scenario; without one, the library finds no driver.
pub(crate) fn in_child(test: &str, scenario: Option<&str>) {
    let folder = Folder::new();
    // Test names do not begin with the crate's.
    let (_, test) = test.split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--ignored", "--nocapture"]);
    folder.machine().show_to(&mut child, scenario);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A machine that the fake library shows, and what was asked of it.
pub(crate) struct Machine {
    pub(crate) library: PathBuf,
    control: PathBuf,
    log: PathBuf,
}

/// A line of the call log.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// When, on the machine's monotonic clock.
    pub(crate) at: Duration,
    pub(crate) call: String,
    pub(crate) device: Option<u32>,
}

impl Machine {
    /// The machine of this process.
    pub(crate) fn of_child() -> Self {
        let path = |name| PathBuf::from(std::env::var_os(name).expect("set by the parent"));
        Self { library: path(LIBRARY), control: path(CONTROL), log: path(CALL_LOG) }
    }

    /// Sets the environment of a process that sees this machine.
    pub(crate) fn show_to(&self, process: &mut Command, scenario: Option<&str>) {
        process.env(LIBRARY, &self.library).env(CONTROL, &self.control).env(CALL_LOG, &self.log);
        match scenario {
            Some(scenario) => process.env(SCENARIO, scenario),
            None => process.env_remove(SCENARIO),
        };
    }

    /// Changes the machine.
    pub(crate) fn say(&self, command: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.control).unwrap();
        file.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// A monitor of this machine whose ticks leave most of the budget of driver calls for what is asked seldom, also where
    /// the machine is busy.
    pub(crate) fn calm_monitor(&self) -> GpuMonitor {
        self.monitor_every(Duration::from_millis(500))
    }

    /// A monitor of this machine, with the shortest interval so that tests are quick.
    pub(crate) fn monitor(&self) -> GpuMonitor {
        self.monitor_every(GpuOptions::MIN_INTERVAL)
    }

    pub(crate) fn monitor_every(&self, interval: Duration) -> GpuMonitor {
        gpu::spawn(GpuOptions { library: Some(self.library.clone()), interval, ..GpuOptions::default() })
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .map(|line| {
                let mut words = line.split(' ');
                let at = Duration::from_nanos(words.next().unwrap().parse().unwrap());
                let call = words.next().unwrap().to_owned();
                Asked { at, call, device: words.next().unwrap().parse().ok() }
            })
            .collect()
    }
}

/// Waits for a snapshot.
pub(crate) async fn until(
    monitor: &GpuMonitor,
    wanted: impl FnMut(&Arc<GpuSnapshot>) -> bool,
) -> Arc<GpuSnapshot> {
    let mut snapshots = monitor.snapshots();
    let found = tokio::time::timeout(PATIENCE, snapshots.wait_for(wanted)).await;
    let newest = Arc::clone(&monitor.snapshots().borrow());
    let found = found.unwrap_or_else(|_| panic!("it did not come; the newest is {newest:?}"));
    Arc::clone(&found.unwrap())
}

/// Waits for a snapshot in which one GPU, by index, is as wanted.
pub(crate) async fn until_gpu(
    monitor: &GpuMonitor,
    index: u32,
    wanted: impl Fn(&GpuReading) -> bool,
) -> GpuReading {
    let is_it = |gpu: &GpuReading| gpu.info.index == index && wanted(gpu);
    let snapshot = until(monitor, |now| now.gpus.iter().any(&is_it)).await;
    snapshot.gpus.iter().find(|gpu| is_it(gpu)).unwrap().clone()
}

/// An agent process, ended in any case.
pub(crate) struct Agent(pub(crate) Child);

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Agent {
    /// Starts the agent's program on a machine.
    pub(crate) fn start(machine: &Machine, scenario: &str, folder: &Folder) -> Self {
        Self::start_with(machine, scenario, folder, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(machine: &Machine, scenario: &str, folder: &Folder, flags: &[&str]) -> Self {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_plimsoll-agent"));
        machine.show_to(&mut agent, Some(scenario));
        agent.args(["--listen-http", "127.0.0.1:0", "--node-name", "node", "--gpu-interval", "100ms"]);
        agent.arg("--nvml-library").arg(&machine.library);
        agent.args(flags);
        agent.arg("--address-file").arg(folder.path().join("address"));
        let log = std::fs::File::create(folder.path().join("agent.log")).unwrap();
        Self(agent.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code, once it has ended.
    pub(crate) async fn code(&mut self) -> Option<i32> {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the agent did not end");
    }
}

/// Looks again and again until something holds that no channel tells.
pub(crate) async fn until_it_holds(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come true");
}
