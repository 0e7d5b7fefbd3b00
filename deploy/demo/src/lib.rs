//! The whole system on one machine without a GPU or a cluster.
//!
//! Real agents on fake NVML, emulated engines, an open-loop workload, the real planner; and beside what the planner
//! sees, what really happened. [`plan`] says which processes there are and [`stage`] runs them; [`load`] asks the
//! engines; [`sight`] is the planner's view, [`exact`] the engines' own record, [`mod@look`] finds the samples that both
//! are about; [`frame`] is what is shown, [`table`] its text and [`screen`] where it goes. [`app`] holds it together,
//! [`watch`] what it knows while it runs, and [`faults`] is what it does to engines when it is asked to.

pub mod act;
pub mod app;
pub mod args;
pub mod exact;
pub mod faults;
pub mod frame;
pub mod load;
pub mod look;
pub mod plan;
pub mod policy;
pub mod screen;
pub mod sight;
pub mod stage;
pub mod table;
mod watch;
