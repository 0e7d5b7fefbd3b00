//! The reader on captured pages, against a slow and obvious one.

use std::{fs, path::Path};

use plimsoll_common::{
    engine::{DistributionKind, EngineKind},
    units::{Micros, Ratio},
};

use super::{Buckets, Slo, edges_of, fixtures};
use crate::exposition::{Entry, Limits, read};

type Plain = (String, Vec<(String, String)>, u64);

/// Reads a well-formed page one character at a time, with the standard library's number parser.
fn reference(page: &str) -> Vec<Plain> {
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(reference_line).collect()
}

fn reference_line(line: &str) -> Plain {
    let name_end = line.find(['{', ' ']).unwrap();
    let (name, rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    let mut chars = rest.chars().peekable();
    if chars.next_if_eq(&'{').is_some() {
        while chars.next_if_eq(&'}').is_none() {
            let mut label = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=') {
                label.push(c);
            }
            assert_eq!((chars.next(), chars.next()), (Some('='), Some('"')));
            let mut value = String::new();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => match chars.next().unwrap() {
                        'n' => value.push('\n'),
                        other => value.push(other),
                    },
                    other => value.push(other),
                }
            }
            labels.push((label, value));
            chars.next_if_eq(&',');
        }
    }
    let value: String = chars.collect();
    (name.to_owned(), labels, value.trim().parse::<f64>().unwrap().to_bits())
}

fn assert_like_reference(name: &str, page: &[u8]) {
    let text = std::str::from_utf8(page).unwrap();
    let mut lines = read(page, Limits::default()).unwrap();
    let read: Vec<Plain> = lines
        .by_ref()
        .filter_map(Entry::into_sample)
        .map(|sample| {
            assert_eq!(sample.timestamp, None, "{name}");
            let labels = sample
                .labels
                .iter()
                .map(|label| (label.name.to_owned(), label.value.text().into_owned()))
                .collect();
            (sample.name.to_owned(), labels, sample.value.to_bits())
        })
        .collect();
    assert_eq!(lines.skipped().first, None, "{name}");
    assert!(read == reference(text), "{name} was read otherwise than by the reference");
    assert!(read.len() > 50, "{name} has hardly any samples");
}

fn pages_below(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            pages_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "prom") {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn fixture_pages_are_read_like_the_reference() {
    let mut pages = Vec::new();
    pages_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"), &mut pages);
    assert!(!pages.is_empty());
    for (name, page) in pages {
        assert_like_reference(&name, &page);
    }
}

#[test]
fn all_captured_pages_are_read_like_the_reference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/engine-metrics");
    if !folder.is_dir() {
        println!("SKIPPED: no captured pages at {}", folder.display());
        return;
    }
    let mut pages = Vec::new();
    pages_below(&folder, &mut pages);
    assert!(pages.len() > 60, "only {} captured pages", pages.len());
    for (name, page) in pages {
        assert_like_reference(&name, &page);
    }
}

#[test]
fn the_buckets_of_a_captured_page_are_known() {
    let buckets = Buckets::of(&fixtures::page(&String::from_utf8(fixtures::bytes("before.prom")).unwrap()));
    let of = |ttft: u64, itl: u64| {
        let (ttft, itl) = (Some(Micros::from_millis(ttft)), Some(Micros::from_millis(itl)));
        let slo = Slo { percentile: Ratio::from_ppm(950_000), ttft, itl, tpot: None, e2e: None };
        edges_of(&slo, EngineKind::Vllm, &buckets)
    };
    assert!(of(500, 25).iter().all(|edge| edge.is_edge && edge.flag.is_none()));
    let [ttft, itl] = &of(2_000, 25)[..] else { panic!() };
    assert!(!ttft.is_edge && itl.is_edge);
    assert_eq!(ttft.around, (Some(1.0), Some(2.5)));
    assert_eq!(itl.kind, Some(DistributionKind::ItlStep));
}
