//! What the journal answers.

use super::*;

fn recorded(steps: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut controller) = begun(dir.path(), Limits::default());
    drive(&mut writer, &mut controller, 0..steps);
    drop(writer);
    dir
}

#[test]
fn why_a_pool_has_its_target_is_told_for_any_time() {
    let dir = recorded(100);
    let journal = Journal::open(dir.path()).unwrap();
    let newest = explain::explain(&journal, "chat", Micros::MAX).unwrap();
    assert_eq!(newest.at, at(99));
    assert_eq!(newest.observed.as_ref().unwrap().replicas.ready, 3);
    let earlier = explain::explain(&journal, "chat", Micros(at(41).0 + 3)).unwrap();
    assert_eq!(earlier.at, at(41));
    let text = earlier.text();
    for part in [
        "chat at 2025-10-09T09:00:10Z: ",
        "because",
        "seen      3 ready",
        "requests/s now",
        "needs",
        "within 1 to 20",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    // A time between the checkpoint of a segment and its first step is told by the segment before.
    let second = journal.segments().unwrap()[1];
    let between = explain::explain(&journal, "chat", Micros(second.began.0)).unwrap();
    assert!(between.at <= second.began, "{:?}", between.at);
    let json = serde_json::to_value(&earlier).unwrap();
    assert_eq!(json["explanation"]["seen"]["ready"], 3);
}

#[test]
fn the_last_change_before_is_told() {
    let dir = recorded(60);
    let journal = Journal::open(dir.path()).unwrap();
    let all: Vec<Recorded> =
        journal.segments().unwrap().iter().flat_map(|segment| journal.steps(segment).unwrap()).collect();
    let chat = PoolName::parse("chat").unwrap();
    let moved = |step: &&Recorded| {
        let explained = &step.step().unwrap().explanation.pools[&chat];
        explained.from != explained.to
    };
    let last = all.iter().rfind(|step| step.at < at(59) && moved(step)).map(|step| step.at);
    let told = explain::explain(&journal, "chat", Micros::MAX).unwrap().last_move;
    assert!(last.is_some(), "a pool of 3 at this load is told to move");
    assert_eq!(told.map(|one| one.at), last);
}

#[test]
fn a_pool_or_a_time_that_is_not_there_is_told_with_what_is() {
    let dir = recorded(5);
    let journal = Journal::open(dir.path()).unwrap();
    let error = |pool: &str, at: Micros| explain::explain(&journal, pool, at).unwrap_err().to_string();
    assert!(error("chatt", Micros::MAX).contains("did you mean 'chat'?"));
    assert!(error("zzz", Micros::MAX).contains("there are batch, chat"));
    assert!(error("chat", Micros(5)).contains("the journal begins only at 2025-10-09T08:53:20Z"));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Journal::open(empty.path()), Err(JournalError::Missing(_))));
}

#[test]
fn advice_is_scored_against_the_fleet_that_was() {
    let dir = recorded(120);
    let journal = Journal::open(dir.path()).unwrap();
    let segments = journal.segments().unwrap();
    let shadow = shadow::shadow(&journal, &segments, (Micros::ZERO, Micros::MAX), &mut || ()).unwrap();
    assert_eq!((shadow.from, shadow.to), (at(0), at(119)));
    let [batch, chat] = &shadow.pools[..] else { panic!("{:?}", shadow.pools) };
    assert_eq!((batch.pool.as_str(), chat.pool.as_str()), ("batch", "chat"));
    // Three replicas of one GPU over 119 steps of 10 s.
    assert!((chat.had.gpu_hours - 3.0 * 1_190.0 / 3_600.0).abs() < 1e-9, "{chat:?}");
    assert!(chat.advised.gpu_hours > 0.0 && chat.differed > 0 && chat.judged_s > 0.0);
    assert!(chat.had.attained_by_model.is_some_and(|share| (0.0..=1.0).contains(&share)));
    let ttft = chat.ttft.unwrap();
    assert!(ttft.low().get() < 1.0 && ttft.high().get() >= 1.0 - 1e-9, "{ttft:?}");
    // Of ITL nothing is known, so nothing is sure of both.
    assert!(chat.attained.unwrap().low().get() <= 0.0);
    // By thresholds nobody knows what was needed.
    assert!(batch.judged_s <= 0.0 && batch.short.is_empty());
    let text = shadow.text();
    assert!(text.contains("GPU-hours") && text.contains("what was needed is not known"), "{text}");
}
