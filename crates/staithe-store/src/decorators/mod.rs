//! Stores around stores: faults, latency, a request log, and a view of one prefix.

mod fault;
mod faulty;
mod gate;
mod layer;
mod operation;
mod prefixed;
mod request_log;
mod slow;

pub use fault::{Fault, FaultAction};
pub use faulty::{FaultHandle, Faulty};
pub use gate::Gate;
pub use layer::{Layer, Request};
pub use operation::Operation;
pub use prefixed::Prefixed;
pub use request_log::{Record, RequestLog, RequestTable};
pub use slow::{Pace, Slow};
