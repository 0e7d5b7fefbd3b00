//! One child process: its log, its addresses, its end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use rustix::process::Signal;

use crate::wait;

/// How long a process has for its orderly end before it is killed, when nobody asks for something else.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a child that is to end.
const PAUSE: Duration = Duration::from_millis(5);
/// How much of a log is shown where it explains an error.
const TAIL_LINES: usize = 40;
/// How much of a log's end is read for its tail.
const TAIL_BYTES: u64 = 64 << 10;

/// A child that does not outlive its handle: dropping it sends SIGTERM and, after a few seconds, SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    addresses: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command with its output in `log`. `addresses` is where it was told to write what it listens on.
    ///
    /// `own_group` keeps the terminal's Ctrl-C from it: whoever started it decides when it ends.
    ///
    /// # Errors
    /// When it can't be started or its files can't be made.
    pub fn start(
        name: &str,
        mut command: Command,
        log: PathBuf,
        addresses: PathBuf,
        own_group: bool,
    ) -> anyhow::Result<Self> {
        match fs::remove_file(&addresses) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} can't be removed", addresses.display()));
            }
            _ => {}
        }
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let output = open().with_context(|| format!("the log {} can't be opened", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        if own_group {
            command.process_group(0);
        }
        let program = command.get_program().to_owned();
        let child =
            command.spawn().with_context(|| format!("{name}: {} can't be started", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log, addresses, ended: None })
    }

    /// Its name in messages and of its files.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
            .unwrap_or_else(|error| format!("(the log {} can't be read: {error})", self.log.display()))
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Fails with the tail of the log if the process has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended unasked ({status}); its log ends with:\n{}", self.name, self.log_tail())
            }
        }
    }

    /// Sends a signal; nothing happens if it has ended.
    ///
    /// # Errors
    /// When the signal can't be sent.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // The child is not reaped yet, so that the id can be nobody else's.
        if self.ended()?.is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, signal).with_context(|| format!("{}: {signal:?} can't be sent", self.name))?;
        }
        Ok(())
    }

    /// Ends it at once, and forgets what it had not written.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {within:?}; its log ends with:\n{}", self.name, self.log_tail());
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks it to end with SIGTERM, and waits for that.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn stop(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within).await
    }

    /// The address that it bound for `service`, such as `http`; waits until it tells.
    ///
    /// # Errors
    /// When it ends, or does not tell `within` that time.
    pub async fn address(&mut self, service: &str, within: Duration) -> anyhow::Result<SocketAddr> {
        let what = format!("{service} address of {}", self.name);
        let found = wait::until(&what, within, async || {
            self.check()?;
            let Ok(text) = fs::read_to_string(&self.addresses) else {
                return Ok(Err("no address file".to_owned()));
            };
            let addresses: Value = serde_json::from_str(&text)?;
            let address = addresses[service].as_str().map(str::parse);
            Ok(Ok(address.with_context(|| format!("there is no {service} in {text}"))??))
        });
        let found = found.await;
        found.with_context(|| format!("the log of {} ends with:\n{}", self.name, self.log_tail()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever fails here, there is nobody left to tell.
        let _ = self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.ended(), Ok(None)) {
            std::thread::sleep(PAUSE);
        }
        if matches!(self.ended(), Ok(None)) {
            let _ = self.kill();
        }
        if std::thread::panicking() {
            show(&format!("--- {} ended; its log ends with:\n{}", self.name, self.log_tail()));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test has failed, and this says why")]
fn show(text: &str) {
    eprintln!("{text}");
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("child", command, folder.join("log"), folder.join("addresses.json"), false).unwrap()
    }

    #[tokio::test]
    async fn an_address_is_waited_for_and_an_early_end_is_told_with_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("addresses.json");
        let script = format!(
            "echo '{{\"http\":\"127.0.0.1:7\"}}' > {0}.new; mv {0}.new {0}; exec sleep 60",
            file.display()
        );
        let mut child = shell(folder.path(), &script);
        let address = child.address("http", Duration::from_secs(10)).await.unwrap();
        assert_eq!(address.port(), 7);
        let error = child.address("quic", Duration::from_secs(10)).await.unwrap_err();
        assert!(format!("{error:#}").contains("no quic"), "{error:#}");
        drop(child);
        let mut child = shell(folder.path(), "echo the engine room is on fire; exit 3");
        let error = format!("{:#}", child.address("http", Duration::from_secs(10)).await.unwrap_err());
        assert!(error.contains("exit status: 3") && error.contains("on fire"), "{error}");
    }

    #[tokio::test]
    async fn a_child_is_asked_first_and_killed_where_it_does_not_listen() {
        let folder = tempfile::tempdir().unwrap();
        let mut polite = shell(folder.path(), "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        wait::until("ready child", Duration::from_secs(10), async || {
            Ok(polite.log_tail().contains("ready").then_some(()).ok_or_else(String::new))
        })
        .await
        .unwrap();
        assert_eq!(polite.stop(Duration::from_secs(10)).await.unwrap().code(), Some(7));
        let mut deaf = shell(folder.path(), "trap '' TERM; echo deaf; while :; do sleep 0.01; done");
        wait::until("deaf child", Duration::from_secs(10), async || {
            Ok(deaf.log_tail().contains("deaf").then_some(()).ok_or_else(String::new))
        })
        .await
        .unwrap();
        assert!(deaf.stop(Duration::from_millis(50)).await.is_err());
        assert_eq!(deaf.kill().unwrap().code(), None);
    }
}
