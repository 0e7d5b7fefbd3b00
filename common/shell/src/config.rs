//! Flags, environment and a TOML file with the same names, read whole before anything starts.
//!
//! A daemon describes its settings once, as a struct that is both `clap::Args` and serde, every field optional. The
//! file's keys are the flags' long names. What stands on the command line (or in the flag's environment variable)
//! wins over the file. Unknown keys are refused with the nearest known one.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Serialize, de::DeserializeOwned};
use toml::de::DeTable;

use crate::EXIT_USAGE;

/// Everything that is wrong with a configuration, not only the first thing.
#[derive(Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// One sentence each: what is wrong, where, and what to do.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration can't be used")?;
        if let Some(file) = &self.file {
            write!(f, " (file {})", file.display())?;
        }
        for problem in &self.problems {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}

/// Collects problems while a configuration is checked, so that all are told at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes a problem.
    pub fn push(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// Takes a value, or notes what is wrong with it, preceded by where it stands.
    pub fn take<T, E: fmt::Display>(&mut self, place: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.push(format!("{place}: {error}"))).ok()
    }

    /// Hands out the value when nothing was wrong.
    ///
    /// # Errors
    /// With all problems noted.
    pub fn into_result<T>(self, file: Option<&Path>, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(ConfigError { file: file.map(Path::to_owned), problems: self.0 }),
        }
    }
}

/// A table or array of tables that only the file has, such as `[[endpoint]]`, with its keys.
#[derive(Debug, Clone, Copy)]
pub struct FileTable {
    /// The key in the file.
    pub name: &'static str,
    /// The keys within.
    pub keys: &'static [&'static str],
}

/// Parses the command line. Help and version are printed and end well; a wrong use is told on stderr and ends with
/// exit code 64.
///
/// # Errors
/// With the exit code to end with.
pub fn parse_command_line<P: clap::Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| {
        let code = if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        // When even stderr is closed there is nobody left to tell.
        let _ = error.print();
        code
    })
}

/// Lays the command line over a file, if one is given.
///
/// # Errors
/// When the file can't be read or parsed, or holds an unknown key or a value of the wrong kind.
pub fn layered<F>(flags: &F, file: Option<&Path>, tables: &[FileTable]) -> Result<F, ConfigError>
where
    F: clap::Args + Serialize + DeserializeOwned,
{
    let fail = |problem: String| ConfigError { file: file.map(Path::to_owned), problems: vec![problem] };
    let Some(path) = file else {
        return overlay::<F>(toml::Table::new(), flags).map_err(fail);
    };
    let text = std::fs::read_to_string(path).map_err(|error| fail(format!("it can't be read: {error}")))?;
    from_text(&text, flags, tables).map_err(|problems| ConfigError { file: Some(path.to_owned()), problems })
}

/// A configuration as TOML, for people who want to see what counts.
///
/// # Errors
/// When a value has no TOML form.
pub fn to_toml<F: Serialize>(flags: &F) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(flags)
}

fn from_text<F>(text: &str, flags: &F, tables: &[FileTable]) -> Result<F, Vec<String>>
where
    F: clap::Args + Serialize + DeserializeOwned,
{
    let parsed = DeTable::parse(text).map_err(|error| vec![error.to_string()])?;
    let command = F::augment_args(clap::Command::new("settings"));
    let mut known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    known.retain(|name| *name != "config");
    known.extend(tables.iter().map(|table| table.name));
    let mut problems = Vec::new();
    refuse_unknown(text, parsed.get_ref(), &known, "", &mut problems);
    for table in tables {
        for inner in inner_tables(parsed.get_ref(), table.name) {
            refuse_unknown(text, inner, table.keys, table.name, &mut problems);
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Once typed, so that a wrong kind of value is told with its line; once as a table, to lay the flags over it.
    toml::from_str::<F>(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
    let table = text.parse::<toml::Table>().map_err(|error| vec![error.to_string()])?;
    overlay(table, flags).map_err(|problem| vec![problem])
}

fn inner_tables<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Vec<&'t DeTable<'i>> {
    use toml::de::DeValue;
    match table.get(name).map(toml::Spanned::get_ref) {
        Some(DeValue::Table(inner)) => vec![inner],
        Some(DeValue::Array(array)) => array
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(inner) => Some(inner),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn refuse_unknown(text: &str, table: &DeTable<'_>, known: &[&str], place: &str, problems: &mut Vec<String>) {
    for key in table.keys() {
        let name: &str = key.get_ref();
        if known.contains(&name) {
            continue;
        }
        let line = text.get(..key.span().start).map_or(0, |before| before.matches('\n').count()) + 1;
        let place = if place.is_empty() { String::new() } else { format!(" in [[{place}]]") };
        let hint = nearest(name, known).map_or_else(
            || format!("known keys are {}", known.join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        problems.push(format!("line {line}: unknown key '{name}'{place}; {hint}"));
    }
}

/// Which of the known names was probably meant; `None` where none is near. Underscores count as hyphens.
#[must_use]
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.replace('_', "-");
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, candidate)| candidate)
}

fn overlay<F: Serialize + DeserializeOwned>(mut under: toml::Table, flags: &F) -> Result<F, String> {
    let over = toml::Table::try_from(flags).map_err(|error| error.to_string())?;
    under.extend(over);
    under.try_into().map_err(|error: toml::de::Error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Settings {
        #[arg(long)]
        #[serde(skip_serializing_if = "Option::is_none")]
        listen_http: Option<String>,
        #[arg(long)]
        #[serde(skip_serializing_if = "Option::is_none")]
        interval: Option<crate::duration::HumanDuration>,
        #[arg(skip)]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        endpoint: Vec<toml::Table>,
    }

    const TABLES: &[FileTable] = &[FileTable { name: "endpoint", keys: &["url", "model"] }];

    fn read(text: &str, flags: &Settings) -> Result<Settings, Vec<String>> {
        from_text(text, flags, TABLES)
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let flags = Settings { listen_http: Some("[::1]:1".to_owned()), ..Settings::default() };
        let settings = read("listen-http = '127.0.0.1:2'\ninterval = '2s'\n", &flags).unwrap();
        assert_eq!(settings.listen_http.as_deref(), Some("[::1]:1"));
        assert_eq!(settings.interval, "2s".parse().ok());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one_and_its_line() {
        let problems = read("interval = '1s'\nlisten_htp = 'x'\n", &Settings::default()).unwrap_err();
        assert_eq!(problems, ["line 2: unknown key 'listen_htp'; did you mean 'listen-http'?"]);
        let problems = read("[[endpoint]]\nurl = 'x'\nmodle = 'm'\n", &Settings::default()).unwrap_err();
        assert_eq!(problems, ["line 3: unknown key 'modle' in [[endpoint]]; did you mean 'model'?"]);
        let problems = read("zzz = 1\n", &Settings::default()).unwrap_err();
        assert!(problems[0].contains("known keys are listen-http, interval, endpoint"), "{problems:?}");
    }

    #[test]
    fn a_wrong_kind_of_value_names_its_line() {
        let problems = read("\ninterval = 'soon'\n", &Settings::default()).unwrap_err();
        assert!(problems[0].contains("line 2") && problems[0].contains("500ms"), "{problems:?}");
        assert!(read("interval = [", &Settings::default()).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let path = Path::new("/nowhere/plimsoll.toml");
        let error = layered(&Settings::default(), Some(path), TABLES).unwrap_err();
        assert!(error.to_string().contains("/nowhere/plimsoll.toml"));
    }
}
