//! A file's bytes, and what they are by their content.

use std::collections::BTreeMap;

use plimsoll_engine::Profile;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    arrays::{Arrays, listed},
    dynamo,
    error::SourceError,
    npy, npz,
    sheet::Sheet,
    tables::Tables,
};

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What a file is.
pub(crate) enum Content {
    /// A profile of our own.
    Own(Box<Profile>),
    /// Tables of an engine.
    Tables(Box<Tables>),
    /// A Kubernetes ConfigMap that has files in it.
    Bundle(Vec<Source>),
}

/// A ConfigMap as `kubectl get configmap -o json` writes it.
#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl Source {
    /// Tells by the content what it is, and reads it.
    pub(crate) fn content(&self) -> Result<Content, SourceError> {
        if npz::is_archive(&self.bytes) {
            let arrays = npz::read(&self.bytes)?;
            return Ok(Content::Tables(Box::new(dynamo::tables(&self.name, &arrays)?)));
        }
        if npy::is_array(&self.bytes) {
            return Err(SourceError::BareArray);
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) if text.trim_start().starts_with(['{', '[']) => self.json(text),
            _ => Err(SourceError::Binary),
        }
    }

    fn json(&self, text: &str) -> Result<Content, SourceError> {
        let as_what = |what| move |error| SourceError::Json { what, error };
        let keys: BTreeMap<String, IgnoredAny> =
            serde_json::from_str(text).map_err(as_what("a profile or a table"))?;
        let has = |key: &str| keys.contains_key(key);
        if has("timing") {
            return Ok(Content::Own(Box::new(Profile::from_json(text)?)));
        }
        if has("prefill_columns") {
            let sheet: Sheet = serde_json::from_str(text).map_err(as_what("a sheet of named columns"))?;
            return Ok(Content::Tables(Box::new(sheet.tables(&self.name)?)));
        }
        if has("apiVersion") && has("data") {
            let map: ConfigMap = serde_json::from_str(text).map_err(as_what("a ConfigMap"))?;
            return Ok(Content::Bundle(self.unpacked(map)));
        }
        let arrays: Arrays = serde_json::from_str(text).map_err(as_what("a table of Dynamo's profiler"))?;
        if !dynamo::is_known(&arrays) {
            let names: Vec<&String> = keys.keys().collect();
            return Err(SourceError::Unrecognised { has: listed(&names) });
        }
        Ok(Content::Tables(Box::new(dynamo::tables(&self.name, &arrays)?)))
    }

    /// The tables in a ConfigMap; it may hold other files, too.
    fn unpacked(&self, map: ConfigMap) -> Vec<Self> {
        let tables = map.data.into_iter().filter(|(key, _)| key.ends_with("_raw_data.json"));
        tables
            .map(|(key, text)| Self { name: format!("{}: {key}", self.name), bytes: text.into_bytes() })
            .collect()
    }
}
