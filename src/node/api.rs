//! Opens the API for other systems, last of all listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{StartError, bind};
use crate::config::Config;
use crate::ops::View;
use crate::ops::api::{Api, listener};

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
    let api = Arc::new(Api::new(view.clone(), door, config.arrive_rules().unwrap_or_default()));
    let task = tokio::spawn(listener::serve(listener, api.clone(), accepting.clone()));
    Ok(Some(Serving { api, address, task }))
}
