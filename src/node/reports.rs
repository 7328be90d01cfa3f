//! Starts the secretary, where the configuration has reports.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::custody::Custody;
use crate::metrics::Metrics;
use crate::orders::registrar;
use crate::reports::secretary::{self, Desk};

/// Starts who keeps reports; nobody, where the configuration has no `[reports]`.
pub(super) fn keep(
    config: &Config,
    orders: Option<&registrar::Desk>,
    (custody, metrics): (&Custody, &Metrics),
    asking: &CancellationToken,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Option<Desk> {
    let (section, orders) = (config.secretary()?, orders?.clone());
    let (custody, metrics) = (custody.clone(), metrics.clone());
    let (desk, task) = secretary::start(section, custody, orders, metrics, asking.clone());
    tasks.push(task);
    Some(desk)
}
