//! The agent's own families: what it costs, its way to the planner, its readers.

use plimsoll_common::units::Ratio;
use plimsoll_shell::{
    http::write_refusals,
    metrics::{MetricPage, MetricType::Gauge},
};

use crate::serve::Pages;

pub(super) fn write(page: &mut MetricPage, pages: &Pages) {
    let own = *pages.0.feeds.costs.borrow();
    let version = env!("CARGO_PKG_VERSION");
    page.gauge(
        "plimsoll_agent_info",
        "The agent; always 1.",
        &[("version", version), ("node", pages.0.node.as_str())],
        1u64,
    );
    page.counter(
        "plimsoll_agent_cpu_seconds_total",
        "CPU time of the agent.",
        &[],
        own.cpu_us_total as f64 / 1e6,
    );
    page.family("plimsoll_agent_resident_memory_bytes", Gauge, "Resident memory of the agent.")
        .maybe(&[], own.rss_bytes);
    page.family("plimsoll_host_cpu_utilization_ratio", Gauge, "CPU utilization of the host, 0 to 1.")
        .maybe(&[], own.host_cpu.map(Ratio::get));
    page.family("plimsoll_host_memory_used_bytes", Gauge, "Memory of the host in use.")
        .maybe(&[], own.host_memory_used_bytes);
    let readers = pages.0.hub.totals();
    page.gauge("plimsoll_agent_stream_readers", "Readers of the event stream.", &[], readers.subscribers);
    let help = "Readers of the event stream let go because they read too slowly.";
    page.counter("plimsoll_agent_stream_readers_dropped_total", help, &[], readers.dropped);
    let help = "Readers of the event stream turned away because there were too many.";
    page.counter("plimsoll_agent_stream_readers_refused_total", help, &[], readers.refused);
    write_refusals(page, "plimsoll_agent", &pages.0.feeds.refusals);
    let Some(uplink) = &pages.0.feeds.uplink else { return };
    let status = uplink.status.borrow().clone();
    let spool = uplink.usage();
    let connected = status.connected() > 0;
    page.gauge("plimsoll_agent_planner_connected", "Whether a planner takes the reports.", &[], connected);
    let planners = status.links.len();
    page.gauge("plimsoll_agent_planners", "Addresses of planners that are known.", &[], planners);
    let help = "Planners that take the reports.";
    page.gauge("plimsoll_agent_planners_connected", help, &[], status.connected());
    page.counter(
        "plimsoll_agent_planner_connections_total",
        "Connections made to the planner.",
        &[],
        status.connects,
    );
    page.counter(
        "plimsoll_agent_reports_sent_total",
        "Reports sent, repeats included.",
        &[],
        status.reports_sent,
    );
    page.counter(
        "plimsoll_agent_report_bytes_sent_total",
        "Frame bytes sent, without QUIC's own.",
        &[],
        status.bytes_sent,
    );
    page.gauge(
        "plimsoll_agent_spool_reports",
        "Reports that wait for an acknowledgement.",
        &[],
        spool.reports,
    );
    let help = "Reports that every planner has, kept for one that starts anew.";
    page.gauge("plimsoll_agent_spool_retained_reports", help, &[], spool.retained);
    let help = "Windows made one with others, because the spool was nearly full.";
    page.counter("plimsoll_agent_windows_coalesced_total", help, &[], spool.coalesced_windows);
    page.gauge("plimsoll_agent_spool_bytes", "Bytes of the spool in use.", &[], spool.bytes);
    page.counter(
        "plimsoll_agent_windows_dropped_total",
        "Windows dropped before every planner had them, because the spool was full.",
        &[],
        spool.dropped_windows,
    );
}
