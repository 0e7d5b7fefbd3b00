//! A whole planner in this process, real agents' connections and real HTTP requests.

mod check;
mod decide;
mod golden;
mod handshakes;
mod http;
mod ingest;
mod journal;
mod profile;
mod reasons;
mod simulate;
mod stalls;
mod support;
