//! The agent's program: exit codes and signals.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Agent, Folder, Machine, until_it_holds};

const SCENARIO: &str = "hgx-h100-8";

#[tokio::test]
async fn an_upgraded_driver_ends_the_agent_with_75() {
    let folder = Folder::new();
    let machine = folder.machine();
    machine.say("upgrade 590.10");
    let mut agent = Agent::start(&machine, SCENARIO, &folder);
    assert_eq!(agent.code().await, Some(75));
    let told = std::fs::read_to_string(folder.path().join("agent.log")).unwrap();
    assert!(told.contains("different versions"), "{told}");
}

#[tokio::test]
async fn an_agent_that_is_to_stay_up_finds_the_new_library() {
    let folder = Folder::new();
    let machine = folder.machine();
    let mut agent = Agent::start_with(&machine, SCENARIO, &folder, &["--on-driver-upgrade", "keep"]);
    let reads = |machine: &Machine| {
        machine.asked().iter().filter(|asked| asked.call == "nvmlDeviceGetFieldValues").count()
    };
    until_it_holds("a tick", || reads(&machine) > 0).await;
    machine.say("upgrade 590.10");
    let said =
        || std::fs::read_to_string(folder.path().join("agent.log")).unwrap().contains("different versions");
    until_it_holds("the upgrade", said).await;
    let before = reads(&machine);
    machine.say("library 590.10");
    until_it_holds("a tick with the new library", || reads(&machine) > before).await;
    agent.signal("TERM");
    assert_eq!(agent.code().await, Some(0));
}

#[tokio::test]
async fn a_hung_call_does_not_keep_the_agent_from_ending() {
    let folder = Folder::new();
    let machine = folder.machine();
    let mut agent = Agent::start(&machine, SCENARIO, &folder);
    until_it_holds("a tick", || machine.asked().iter().any(|asked| asked.call == "nvmlDeviceGetFieldValues"))
        .await;
    machine.say("hang nvmlDeviceGetFieldValues");
    let mut before = 0;
    until_it_holds("the hang", || {
        let now = machine.asked().len();
        std::mem::replace(&mut before, now) == now
    })
    .await;
    let asked = Instant::now();
    agent.signal("TERM");
    assert_eq!(agent.code().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn sigusr1_gives_the_driver_free() {
    let folder = Folder::new();
    let machine = folder.machine();
    let mut agent = Agent::start(&machine, SCENARIO, &folder);
    until_it_holds("a tick", || machine.asked().iter().any(|asked| asked.call == "nvmlDeviceGetFieldValues"))
        .await;
    until_it_holds("the address", || folder.path().join("address").exists()).await;
    agent.signal("USR1");
    let is_shut = || machine.asked().last().is_some_and(|asked| asked.call == "nvmlShutdown");
    until_it_holds("the release", is_shut).await;
    agent.signal("TERM");
    assert_eq!(agent.code().await, Some(0));
    assert!(is_shut(), "nothing was asked meanwhile");
}
