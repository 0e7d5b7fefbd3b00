//! With a policy, the planner says how many replicas a pool should have, and why; engines that the agent's file declares
//! later are followed.

use std::{path::PathBuf, sync::Arc};

use plimsoll_tests::{
    daemons::{EmulatorSpec, EndpointSpec, Planner, PlannerSpec},
    http::Http,
};
use serde_json::Value;

use crate::{
    cluster::{LLAMA, planner_shows, play, requests},
    restart::{Setting, free_udp_port, setting_at},
};

/// A pool as the setting's agent declares it.
const POLICY: &str = "interval: 1s
models:
  - name: llama-3.1-8b
    slo: { ttft: { limit: 500ms }, itl: { limit: 30ms } }
    pools:
      - { name: chat, profile: llama-3.1-8b-h100-tp1, max: 4, startUp: 5s }
";

async fn advising(setting: &Setting) -> (Planner, PathBuf) {
    let path = setting.world.file("policy.yaml");
    std::fs::write(&path, POLICY).expect("a policy");
    let mut spec = PlannerSpec { name: "advising".to_owned(), ..setting.spec.clone() };
    spec.flags.extend(["--policy".to_owned(), path.display().to_string()]);
    (spec.start(&setting.world, &setting.http).await.expect("a planner"), path)
}

/// The pool `chat` of a plan.
fn chat(plan: &Value) -> Result<&Value, String> {
    let pools = plan["pools"].as_array().ok_or("no pools")?;
    pools.iter().find(|pool| pool["pool"] == "chat").ok_or_else(|| plan.to_string())
}

async fn plan_where(planner: &mut Planner, what: &str, holds: impl Fn(&Value, &Value) -> bool) -> Value {
    let look = |plan: &Value| {
        let pool = chat(plan)?;
        if holds(plan, pool) { Ok(()) } else { Err(plan.to_string()) }
    };
    planner_shows(planner, what, "/api/v1/plan", look).await.expect("a plan")
}

#[tokio::test]
async fn a_policy_makes_a_plan_that_says_why() {
    let setting = setting_at(free_udp_port()).await;
    let (mut planner, policy) = advising(&setting).await;
    // Longer than the ten seconds over which arrivals are counted.
    let load = play(vec![Arc::clone(&setting.engine)], requests(12.0, 300, 1), 1);
    let (load, plan) = tokio::join!(
        load,
        plan_where(&mut planner, "plan for what arrives", |_, pool| {
            pool["load"]["now_rps"].as_f64().is_some_and(|rate| rate > 6.0)
        })
    );
    load.unwrap();
    let pool = chat(&plan).unwrap();
    assert_eq!((&plan["mode"], &plan["findings"]), (&"advise".into(), &Value::Array(vec![])), "{plan}");
    assert_eq!((&pool["from"], &pool["seen"]["ready"]), (&1.into(), &1.into()), "{pool}");
    // One H100 takes far more of such short requests than a dozen a second.
    assert_eq!(pool["to"], 1, "{pool}");
    assert!(pool["reasons"].as_array().is_some_and(|reasons| !reasons.is_empty()), "{pool}");
    assert!(pool["text"].as_str().is_some_and(|text| text.contains("requests a second now")), "{pool}");
    let isl = pool["believed"]["mix"]["isl"]["mean"].as_f64();
    assert!(isl.is_none_or(|isl| (200.0..900.0).contains(&isl)), "{pool}");
    let page = setting.http.get(planner.address, "/metrics").await.unwrap().text;
    let target =
        "plimsoll_planner_target_replicas{model=\"llama-3.1-8b\",pool=\"chat\",role=\"aggregated\"} 1";
    assert!(page.contains(target), "{page}");
    let page = setting.http.get(planner.address, "/").await.unwrap().text;
    assert!(page.contains("<h2>Advice</h2>") && page.contains("chat"), "{page}");

    // A wrong policy is kept out and told; the next good one is taken.
    std::fs::write(&policy, POLICY.replace("max: 4", "max: 0")).unwrap();
    let error = |plan: &Value| plan["policy"]["error"].as_str().unwrap_or_default().to_owned();
    let plan =
        plan_where(&mut planner, "complaint about the policy", |plan, _| !error(plan).is_empty()).await;
    assert!(error(&plan).contains("line 6"), "{}", error(&plan));
    std::fs::write(&policy, POLICY.replace("name: chat", "name: talk")).unwrap();
    let look = |plan: &Value| {
        let findings: Vec<&Value> = plan["findings"].as_array().into_iter().flatten().collect();
        let is = |kind: &str| findings.iter().any(|finding| finding["finding"] == kind);
        let told = is("pool-without-engines") && is("engines-without-pool");
        if told && plan["policy"]["error"].is_null() { Ok(()) } else { Err(plan.to_string()) }
    };
    planner_shows(&mut planner, "pools that do not fit", "/api/v1/plan", look).await.unwrap();
}

#[tokio::test]
async fn engines_that_come_and_go_are_followed() {
    let mut setting = setting_at(free_udp_port()).await;
    let (mut planner, _) = advising(&setting).await;
    plan_where(&mut planner, "one replica", |_, pool| pool["from"] == 1).await;
    let second = EmulatorSpec::new("second", LLAMA, "llama-3.1-8b-h100-tp1");
    let second = second.start(&setting.world, &Http::default()).await.unwrap();
    let endpoint = EndpointSpec {
        id: "second".to_owned(),
        url: second.url(),
        pool: Some("chat".to_owned()),
        ..EndpointSpec::default()
    };
    setting.agent_spec.endpoints.push(endpoint);
    setting.agent_spec.declare(&setting.world).unwrap();
    plan_where(&mut planner, "two replicas", |_, pool| pool["seen"]["ready"] == 2).await;
    // A file with something wrong in it changes nothing.
    let file = setting.agent_spec.declare(&setting.world).unwrap();
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{whole}\nno-such-key = 1\n")).unwrap();
    setting.agent_spec.endpoints.remove(0);
    setting.agent_spec.declare(&setting.world).unwrap();
    let plan = plan_where(&mut planner, "one replica again", |_, pool| pool["seen"]["ready"] == 1).await;
    assert_eq!(chat(&plan).unwrap()["seen"]["silent"], 0, "{plan}");
    setting.agent.process.check().unwrap();
}
