//! Clocks that jump or run too fast, under the real programs: counts are exact, and how far a clock is off is shown.

use plimsoll_tests::host::Host;
use serde_json::Value;

use crate::{
    cluster::planner_shows,
    faults::clean,
    restart::{free_udp_port, setting_with, shows},
};

/// How far the agent's clock is off, as the planner shows it.
fn skewed(least: f64, most: f64) -> impl Fn(&Value) -> Result<(), String> {
    move |page| match page["agents"]["connected"][0]["clock_skew_seconds"].as_f64() {
        Some(skew) if (least..most).contains(&skew) => Ok(()),
        skew => Err(format!("{skew:?} s")),
    }
}

/// The agent's wall clock jumps an hour ahead and two back, the planner's the other way; and the agent is killed and begins
/// again an hour before its last run did.
#[tokio::test]
async fn wall_clocks_that_jump_an_hour_cost_no_count() {
    let (mut agents, mut planners) = (None, None);
    let mut setting = setting_with(free_udp_port(), |world, spec| {
        agents = Some(Host::new(world, "agent-host").expect("a host"));
        planners = Some(Host::new(world, "planner-host").expect("a host"));
        spec.host = agents.clone();
    })
    .await;
    let (agents, planners) = (agents.unwrap(), planners.unwrap());
    setting.spec.host = Some(planners.clone());
    let mut first = setting.planner("first").await;
    setting.load(40, 0).await;
    shows(&mut first, &setting.ended()).await;
    planner_shows(&mut first, "clocks that agree", "/api/v1/agents", skewed(-30.0, 30.0)).await.unwrap();
    for (ahead_s, id) in [(3600, 1000), (-3600, 2000)] {
        agents.set_clock(ahead_s).unwrap();
        planners.set_clock(-ahead_s).unwrap();
        setting.load(40, id).await;
        shows(&mut first, &setting.ended()).await;
    }
    let status = setting.agent.status().await.unwrap();
    assert_eq!(status["planner"]["connections"], 1, "a clock ends no connection: {status}");
    planner_shows(&mut first, "every window", "/api/v1/agents", clean).await.unwrap();
    // Its clock was an hour ahead before: the epoch of the next run is below that of the last one.
    let before = setting.agent.status().await.unwrap()["agent_epoch"].clone();
    setting.agent.process.kill().unwrap();
    agents.set_clock(-7200).unwrap();
    setting.agent = setting.agent_spec.start(&setting.world, &setting.http).await.unwrap();
    setting.agent.engines_ready(1).await.unwrap();
    let after = setting.agent.status().await.unwrap()["agent_epoch"].clone();
    assert!(after.as_u64() < before.as_u64(), "{after} after {before}");
    setting.load(40, 3000).await;
    shows(&mut first, &setting.ended()).await;
    let interrupted = |page: &Value| match &page["agents"]["connected"][0]["interrupted_runs"] {
        runs if *runs == 1 => skewed(-7230.0, -7170.0)(page),
        runs => Err(format!("{runs} interrupted runs")),
    };
    planner_shows(&mut first, "an interruption, and how far the clock is off", "/api/v1/agents", interrupted)
        .await
        .unwrap();
}

/// All clocks of the agent, those that only measure too, run ten times too fast.
#[tokio::test]
async fn clocks_that_run_ten_times_too_fast_cost_no_count() {
    let setting = setting_with(free_udp_port(), |world, spec| {
        spec.host = Some(Host::new(world, "agent-host").expect("a host").fast(10));
        let flags = ["--report-interval", "2s", "--scrape-interval", "2s", "--gpu", "false"];
        spec.flags = flags.map(str::to_owned).to_vec();
    })
    .await;
    let mut first = setting.planner("first").await;
    setting.load(60, 0).await;
    shows(&mut first, &setting.ended()).await;
    planner_shows(&mut first, "every window", "/api/v1/agents", clean).await.unwrap();
    first.process.kill().unwrap();
    setting.load(40, 1000).await;
    let mut second = setting.planner("second").await;
    shows(&mut second, &setting.ended()).await;
    planner_shows(&mut second, "every window", "/api/v1/agents", clean).await.unwrap();
    planner_shows(&mut second, "how far the clock is off", "/api/v1/agents", skewed(5.0, 3600.0))
        .await
        .unwrap();
}
