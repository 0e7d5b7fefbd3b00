//! From words to commands.

use std::str::{FromStr, SplitWhitespace};

use super::{Calls, Command, Gpus, LinkError, Profile, RemappedRows, RetiredPages, Severity, Throttle};
use crate::abi::Code;
use crate::scenario::{FabricState, cluster_uuid_bytes};

/// A GPU has at most this many instances.
const MAX_INSTANCES: u32 = 7;
/// Names of NVML's clocks event reasons, bit by bit.
const REASONS: [&str; 9] = [
    "idle",
    "applications_clocks",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
];

/// A line that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line:?} is no command: {fault}")]
pub struct ParseError {
    line: String,
    fault: String,
}

impl FromStr for Command {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Self, ParseError> {
        let mut words = Words { left: line.split('#').next().unwrap_or_default().split_whitespace() };
        let command = words.command().and_then(|command| words.end().map(|()| command));
        command.map_err(|fault| ParseError { line: line.to_owned(), fault })
    }
}

impl TryFrom<String> for Command {
    type Error = ParseError;

    fn try_from(line: String) -> Result<Self, ParseError> {
        line.parse()
    }
}

/// What is left of a line. Faults say what was expected.
struct Words<'a> {
    left: SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn command(&mut self) -> Result<Command, String> {
        let name = self.word("a command")?;
        match name {
            "unload" => Ok(Command::Unload),
            "load" => Ok(Command::Load),
            "upgrade" => Ok(Command::Upgrade(self.version()?)),
            "library" => Ok(Command::Library(self.version()?)),
            "hang" => Ok(Command::Hang { calls: self.calls()?, gpus: self.gpus_or_all()? }),
            "release" => Ok(Command::Release(self.calls_or_any()?)),
            "mend" => Ok(Command::Mend(self.calls_or_any()?)),
            "cost" => {
                let calls = self.calls()?;
                Ok(Command::Cost { calls, microseconds: self.at_most("microseconds", 60_000_000)? })
            }
            "slow" => Ok(Command::Slow(self.decimal("a factor of 0 to 1000", 1000.0)?)),
            "fail" => {
                let (calls, code) = (self.calls()?, self.code()?);
                Ok(Command::Fail { calls, code, gpus: self.gpus_or_all()? })
            }
            "fabric" => self.fabric(),
            _ => self.about_gpus(name),
        }
    }

    fn about_gpus(&mut self, name: &str) -> Result<Command, String> {
        if !ABOUT_GPUS.contains(&name) {
            return Err(format!("the command {name:?} is not known"));
        }
        let gpus = self.gpus()?;
        Ok(match name {
            "lose" => Command::Lose(gpus),
            "return" => Command::Return(gpus),
            "reset" => Command::Reset(gpus),
            "remove" => Command::Remove(gpus),
            "add" => Command::Add(gpus),
            "xid" => {
                let code = self.number("an XID")?;
                let instance = match self.left.clone().next() {
                    None => None,
                    Some(_) => Some((self.small("a GPU instance")?, self.small("a compute instance")?)),
                };
                Command::Xid { gpus, code, instance }
            }
            "event" => Command::Event { gpus, kind: self.number("a type")?, data: self.number("data")? },
            "ecc" => {
                Command::Ecc { gpus, severity: self.severity()?, count: self.at_most("a count", 1 << 48)? }
            }
            "ecc-rate" => {
                let severity = self.severity()?;
                Command::EccRate { gpus, severity, per_second: self.decimal("errors per second", 1e9)? }
            }
            "remap" => {
                let (corrected, uncorrected) = (self.small("rows")?, self.small("rows")?);
                let [pending, failed] = self.flags(["pending", "failed"]);
                Command::Remap { gpus, rows: RemappedRows { corrected, uncorrected, pending, failed } }
            }
            "retire" => {
                let pages = |words: &mut Self| words.at_most("pages", 4096).map(|pages| pages as u32);
                let (single_bit, double_bit) = (pages(self)?, pages(self)?);
                let [pending] = self.flags(["pending"]);
                Command::Retire { gpus, pages: RetiredPages { single_bit, double_bit, pending } }
            }
            "recovery" => Command::Recovery { gpus, action: self.at_most("an action of 0 to 7", 7)? as u32 },
            "throttle" => Command::Throttle { gpus, throttle: self.throttle()? },
            "mig" => self.mig(gpus)?,
            "link-errors" => {
                let (link, error) = (self.link()?, self.link_error()?);
                Command::LinkErrors { gpus, link, error, count: self.at_most("a count", 1 << 48)? }
            }
            "pcie-replays" => Command::PcieReplays { gpus, count: self.at_most("a count", 1 << 31)? },
            _ => Command::Link { gpus, link: self.link()?, up: self.either("up", "down")? },
        })
    }

    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.left.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn end(&mut self) -> Result<(), String> {
        self.left.next().map_or(Ok(()), |word| Err(format!("{word:?} is one word too many")))
    }

    fn gpus(&mut self) -> Result<Gpus, String> {
        match self.word("a GPU")? {
            "*" => Ok(Gpus::All),
            word => {
                word.parse().map(Gpus::One).map_err(|_| format!("{word:?} is neither a GPU's number nor *"))
            }
        }
    }

    fn gpus_or_all(&mut self) -> Result<Gpus, String> {
        if self.left.clone().next().is_none() { Ok(Gpus::All) } else { self.gpus() }
    }

    fn calls(&mut self) -> Result<Calls, String> {
        match self.word("a call")? {
            "*" => Ok(Calls::Any),
            name if name.starts_with("nvml") => Ok(Calls::Named(name.to_owned())),
            word => Err(format!("{word:?} is neither a C function such as nvmlDeviceGetPowerUsage nor *")),
        }
    }

    fn calls_or_any(&mut self) -> Result<Calls, String> {
        if self.left.clone().next().is_none() { Ok(Calls::Any) } else { self.calls() }
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.word(what)?;
        number(word).ok_or_else(|| format!("{word:?} is not {what}: write a whole number"))
    }

    fn at_most(&mut self, what: &str, most: u64) -> Result<u64, String> {
        let number = self.number(what)?;
        if number <= most { Ok(number) } else { Err(format!("{number} is not {what}: at most {most}")) }
    }

    fn small(&mut self, what: &str) -> Result<u32, String> {
        self.at_most(what, u32::MAX.into()).map(|number| number as u32)
    }

    fn decimal(&mut self, what: &str, most: f64) -> Result<f64, String> {
        let word = self.word(what)?;
        let number: Option<f64> = word.parse().ok().filter(|number| (0.0..=most).contains(number));
        number.ok_or_else(|| format!("{word:?} is not {what}"))
    }

    fn version(&mut self) -> Result<String, String> {
        let word = self.word("a version")?;
        let numbers =
            word.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        if numbers && word.len() <= 70 {
            Ok(word.to_owned())
        } else {
            Err(format!("{word:?} is not a version"))
        }
    }

    fn code(&mut self) -> Result<Code, String> {
        let word = self.word("an error")?;
        let code =
            Code::named(word).or_else(|| word.parse().ok().map(Code)).filter(|code| *code != Code::SUCCESS);
        code.ok_or_else(|| format!("{word:?} is neither an error's number nor its name"))
    }

    fn severity(&mut self) -> Result<Severity, String> {
        match self.word("corrected or uncorrected")? {
            "corrected" => Ok(Severity::Corrected),
            "uncorrected" => Ok(Severity::Uncorrected),
            word => Err(format!("{word:?} is neither corrected nor uncorrected")),
        }
    }

    /// Optional words in this order.
    fn flags<const N: usize>(&mut self, names: [&str; N]) -> [bool; N] {
        names.map(|name| {
            let given = self.left.clone().next() == Some(name);
            if given {
                self.left.next();
            }
            given
        })
    }

    fn throttle(&mut self) -> Result<Option<Throttle>, String> {
        let word = self.word("reasons")?;
        if word == "off" {
            return Ok(None);
        }
        let bit = |name: &str| REASONS.iter().position(|known| *known == name).map(|bit| 1 << bit);
        let named = || word.split(',').map(bit).try_fold(0_u64, |all, bit| Some(all | bit?));
        let reasons = number(word).or_else(named).ok_or_else(|| {
            format!("{word:?} are not reasons: write off, a number, or some of {}", REASONS.join(","))
        })?;
        Ok(Some(Throttle { reasons, clock_mhz: self.small("MHz")? }))
    }

    fn mig(&mut self, gpus: Gpus) -> Result<Command, String> {
        match self.word("on, off or pending")? {
            "off" => return Ok(Command::Mig { gpus, layout: None }),
            "pending" => return Ok(Command::MigPending { gpus, enabled: self.either("on", "off")? }),
            "on" => {}
            word => return Err(format!("{word:?} is none of on, off and pending")),
        }
        let (mut layout, mut slices) = (Vec::new(), 0);
        while let Some(word) = self.left.next() {
            let profile =
                profile(word).ok_or_else(|| format!("{word:?} is not a profile such as 1g.10gb"))?;
            let count = self.at_most("a count of 1 to 7", MAX_INSTANCES.into())? as u32;
            slices += profile.compute_slices * count;
            layout.push((profile, count));
        }
        if slices > MAX_INSTANCES {
            return Err(format!("{slices} compute slices are more than the {MAX_INSTANCES} that there are"));
        }
        Ok(Command::Mig { gpus, layout: Some(layout) })
    }

    fn link(&mut self) -> Result<Option<u32>, String> {
        match self.word("a link")? {
            "*" => Ok(None),
            word => word.parse().map(Some).map_err(|_| format!("{word:?} is neither a link's number nor *")),
        }
    }

    fn link_error(&mut self) -> Result<LinkError, String> {
        let word = self.word("a kind of link error")?;
        let known = LinkError::WORDS.into_iter().find(|(name, _)| *name == word);
        known.map(|(_, error)| error).ok_or_else(|| {
            let names = LinkError::WORDS.map(|(name, _)| name);
            format!("{word:?} is none of {}", names.join(", "))
        })
    }

    fn fabric(&mut self) -> Result<Command, String> {
        let state = match self.word("a state")? {
            "not_supported" => FabricState::NotSupported,
            "not_started" => FabricState::NotStarted,
            "in_progress" => FabricState::InProgress,
            "completed" => FabricState::Completed,
            word => return Err(format!("{word:?} is no state of a fabric")),
        };
        let cluster = match self.left.next() {
            None => None,
            Some(uuid) if cluster_uuid_bytes(uuid).is_some() => {
                Some((uuid.to_owned(), self.small("a clique")?))
            }
            Some(word) => return Err(format!("{word:?} is not 8-4-4-4-12 hexadecimal digits")),
        };
        Ok(Command::Fabric { state, cluster })
    }

    /// True for the first word, false for the second.
    fn either(&mut self, yes: &str, no: &str) -> Result<bool, String> {
        match self.word(&format!("{yes} or {no}"))? {
            word if word == yes => Ok(true),
            word if word == no => Ok(false),
            word => Err(format!("{word:?} is neither {yes} nor {no}")),
        }
    }
}

/// Commands whose first word is a GPU.
const ABOUT_GPUS: [&str; 17] = [
    "link-errors",
    "pcie-replays",
    "lose",
    "return",
    "reset",
    "remove",
    "add",
    "xid",
    "event",
    "ecc",
    "ecc-rate",
    "remap",
    "retire",
    "recovery",
    "throttle",
    "mig",
    "link",
];

/// A whole number, decimal or hexadecimal.
fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn profile(word: &str) -> Option<Profile> {
    let (compute, memory) = word.split_once('.')?;
    let compute_slices = compute.strip_suffix('g')?.parse().ok()?;
    let memory_gb = memory.strip_suffix("gb")?.parse().ok()?;
    let known = [1, 2, 3, 4, 7].contains(&compute_slices) && (1..=1024).contains(&memory_gb);
    known.then_some(Profile { compute_slices, memory_gb })
}
