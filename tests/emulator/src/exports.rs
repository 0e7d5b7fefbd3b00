//! What the engine tells of each request and each iteration besides its pages: from the same facts as the request log,
//! to the last digit.

use std::io;

use plimsoll_engine::{RequestFacts, Step};
use tokio::task::JoinHandle;

use crate::{
    clock::Clock,
    config::Config,
    live::{Live, Requests},
};

mod lines;
pub mod otlp;
mod passes;
mod sglang;
mod spans;
mod trtllm;

/// Everything that is switched on.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    sglang: Option<sglang::Export>,
    trtllm: Option<trtllm::Export>,
    spans: Option<spans::Export>,
    passes: Option<passes::Export>,
}

impl Exports {
    /// Opens what is configured; the tasks send what does not go to files, until they are aborted.
    ///
    /// # Errors
    /// If a directory, a port or a URL cannot be used.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<(Self, Vec<JoinHandle<()>>)> {
        let wanted = &config.exports;
        let mut tasks = Vec::new();
        let mut exports = Self {
            sglang: wanted.sglang_dir.as_deref().map(sglang::Export::open).transpose()?,
            trtllm: wanted.trtllm_dir.as_deref().map(trtllm::Export::open).transpose()?,
            ..Self::default()
        };
        if let Some(wanted) = &wanted.spans {
            let (export, task) = spans::Export::start(wanted, &config.model)?;
            exports.spans = Some(export);
            tasks.push(task);
        }
        if let Some(address) = wanted.passes {
            let (export, task) = passes::Export::start(address).await?;
            exports.passes = Some(export);
            tasks.push(task);
        }
        Ok((exports, tasks))
    }

    /// An iteration ended.
    pub(crate) fn pass(&mut self, step: &Step<'_>, live: &Requests) {
        if let Some(passes) = &mut self.passes {
            passes.pass(step, live);
        }
    }

    /// A request said all, in the iteration of that number. No export tells of requests that were aborted.
    pub(crate) fn finished(&mut self, clock: &Clock, config: &Config, ended: &Ended<'_>) {
        if let Some(export) = &mut self.sglang {
            export.write(clock, ended);
        }
        if let Some(export) = &mut self.trtllm {
            export.write(config.engine.block_size, ended);
        }
        if let Some(export) = &mut self.spans {
            export.send(clock, ended);
        }
    }
}

/// A request that ended by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) live: &'a Live,
    pub(crate) facts: &'a RequestFacts,
    /// The number of the iteration that brought its last token.
    pub(crate) iteration: u64,
}

/// A directory that is there from now on.
fn directory(path: &std::path::Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}
