//! One name, several planners behind it, and what happens when it stands for others or for nobody.

use std::net::IpAddr;

use plimsoll_tests::{daemons::PlannerSpec, host::Host, process::Signal};
use serde_json::Value;

use crate::{
    cluster::{PATIENCE, planner_shows},
    faults::clean,
    restart::{Setting, free_udp_port, setting_with, shows},
};

const NAME: &str = "planners.plimsoll.test";

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// An engine and an agent that looks for its planners by a name, which stands for nobody yet.
async fn by_name() -> (Setting, Host) {
    let address = free_udp_port();
    let mut host = None;
    let setting = setting_with(address, |world, spec| {
        let made = Host::new(world, "host").expect("a host");
        made.set_name(NAME, &[]).expect("a name");
        (spec.planner, spec.host) = (None, Some(made.clone()));
        spec.flags.extend(["--planner".to_owned(), format!("{NAME}:{}", address.port()), "--dev".to_owned()]);
        host = Some(made);
    })
    .await;
    (setting, host.expect("a host"))
}

/// Another address of the loopback interface, and the port that the name has.
fn at(setting: &Setting, last: u8) -> PlannerSpec {
    let quic = (ip(last), setting.spec.quic.port()).into();
    PlannerSpec { name: format!("planner-{last}"), quic, ..setting.spec.clone() }
}

fn state_of<'a>(status: &'a Value, planner: &str) -> Option<&'a str> {
    let links = status["planner"]["links"].as_array()?;
    links.iter().find(|link| link["address"].as_str().is_some_and(|at| at.starts_with(planner)))?["state"]
        .as_str()
}

/// Each planner applies every window of the agent once, also the one that is killed and starts anew.
#[tokio::test]
async fn two_planners_get_every_window_once_each_while_one_restarts() {
    let (mut setting, host) = by_name().await;
    let mut left = at(&setting, 2).start(&setting.world, &setting.http).await.unwrap();
    let mut right = at(&setting, 3).start(&setting.world, &setting.http).await.unwrap();
    host.set_name(NAME, &[ip(2), ip(3)]).unwrap();
    setting.load(60, 0).await;
    for planner in [&mut left, &mut right] {
        shows(planner, &setting.ended()).await;
    }
    right.process.kill().unwrap();
    setting.load(60, 1000).await;
    shows(&mut left, &setting.ended()).await;
    let noticed = |status: &Value| state_of(status, "127.0.0.3").is_some_and(|state| state != "connected");
    setting.agent.status_where("planner that is missed", PATIENCE, noticed).await.unwrap();
    let mut right = at(&setting, 3).start(&setting.world, &setting.http).await.unwrap();
    setting.load(60, 2000).await;
    for planner in [&mut left, &mut right] {
        shows(planner, &setting.ended()).await;
        planner_shows(planner, "every window", "/api/v1/agents", |page| {
            clean(page)?;
            let (row, windows) = (&page["agents"]["connected"][0], &page["agents"]["windows"]);
            // From the agent's first window on.
            let whole = row["acknowledged_seq"] == windows["applied"];
            if whole { Ok(()) } else { Err(page.to_string()) }
        })
        .await
        .unwrap();
    }
    setting.drained().await;
    let status = setting.agent.status().await.unwrap();
    assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
}

/// The name stands for nobody, then for a planner, then for another one, then for nobody again.
#[tokio::test]
async fn a_name_that_is_unknown_or_moves_costs_no_count() {
    let (mut setting, host) = by_name().await;
    let unknown =
        |status: &Value| status["planner"]["name_error"].as_str().is_some_and(|error| error.contains(NAME));
    setting.agent.status_where("name that can't be resolved", PATIENCE, unknown).await.unwrap();
    setting.load(40, 0).await;
    let mut first = at(&setting, 2).start(&setting.world, &setting.http).await.unwrap();
    host.set_name(NAME, &[ip(2)]).unwrap();
    shows(&mut first, &setting.ended()).await;
    let mut second = at(&setting, 3).start(&setting.world, &setting.http).await.unwrap();
    host.set_name(NAME, &[ip(3)]).unwrap();
    first.process.signal(Signal::KILL).unwrap();
    setting.load(40, 1000).await;
    shows(&mut second, &setting.ended()).await;
    // Where the name is not known any more, the address that it stood for last is asked on.
    host.set_name(NAME, &[]).unwrap();
    second.process.kill().unwrap();
    setting.agent.status_where("name that can't be resolved", PATIENCE, unknown).await.unwrap();
    setting.load(40, 2000).await;
    let mut third = at(&setting, 3).start(&setting.world, &setting.http).await.unwrap();
    shows(&mut third, &setting.ended()).await;
    planner_shows(&mut third, "every window", "/api/v1/agents", clean).await.unwrap();
}
