//! Opens the API for other systems, last of all listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{StartError, bind};
use crate::config::Config;
use crate::ops::View;
use crate::ops::api::{Api, listener};
use crate::reports::arrive::ArriveRules;

/// The API, where it is listened for, and what listens.
pub(super) struct Serving {
    pub(super) api: Arc<Api>,
    pub(super) address: Option<SocketAddr>,
    pub(super) task: JoinHandle<()>,
}

/// Opens the listener, where the configuration has one. It ends with `accepting`, after the
/// requests in hand.
pub(super) async fn listen(
    config: &Config,
    view: &Arc<View>,
    accepting: &CancellationToken,
) -> Result<Option<Serving>, StartError> {
    let (Some(section), Some(door)) = (&config.api, config.api_door()?) else { return Ok(None) };
    let listener = bind("the API", section.listen).await?;
    let address = listener.local_addr().ok();
    let api = Arc::new(Api::new(view.clone(), door, rules(config)));
    let task = tokio::spawn(listener::serve(listener, api.clone(), accepting.clone()));
    Ok(Some(Serving { api, address, task }))
}

/// How a report that is sent to the API is understood.
fn rules(config: &Config) -> ArriveRules {
    let zone = config.orders.as_ref().map_or(TimeZone::UTC, |orders| orders.zone.clone());
    let flagging = config.reports.as_ref().map(|reports| reports.flagging.clone());
    let flagging = flagging.unwrap_or_default();
    ArriveRules { zone, flagging, ..ArriveRules::default() }
}
