//! SIGHUP: certificates and configuration are read again; what cannot change while running stays
//! and is named with its reason, at every reload until the restart.
//!
//! Nothing changes when anything is wrong: all files are read before the first part is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Node, disk_size, owed, router};
use crate::cargo::{Hasher, Sha256};
use crate::config::{Change, Config, reloaded};
use crate::custody::Custody;
use crate::delivery::{self, Delivery, Destination};
use crate::metrics::Metrics;
use crate::ops;

/// How long a reload waits for the orders to be told of other times.
const RULES_TIME: Duration = Duration::from_secs(5);

impl Node {
    /// Reads the configuration and all certificates again.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, in words; then nothing has changed.
    pub async fn reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        let (new, warnings) = Config::load(&self.config.file)
            .map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let problems = new.check_against(&owed(&self.custody).await);
        if !problems.is_empty() {
            return Err(problems.iter().map(ToString::to_string).collect());
        }
        let destinations = new.delivery().map_err(|e| vec![e.to_string()])?;
        let delivery_tls = digest_of(&new.delivery_files());
        let intake_tls = new.intake_tls().map_err(|e| vec![e.to_string()])?;
        let door = new.api_door().map_err(|e| vec![e.to_string()])?;
        let hl7_tls = new.hl7_tls().map_err(|e| vec![e.to_string()])?;
        let reports_tls = new.reports_tls().map_err(|e| vec![e.to_string()])?;
        if let (Some(tunnel), Some(section)) = (&self.tunnel, new.tunnel()) {
            tunnel.reload(&section.files).map_err(|e| vec![e.to_string()])?;
        }
        let all = reloaded(&self.started, &self.config, &new);
        let mut said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        said.extend(all.iter().map(describe));
        self.custody.set_room(new.room(disk_size(&new)));
        if let (Some(config), Some(mut section)) = (&self.intake_config, new.intake()) {
            section.limits.drain = self.started.drain.timeout;
            config.store(Arc::new(section));
        }
        if let (Some(tls), Some(new)) = (&self.intake_tls, intake_tls) {
            tls.store(new);
        }
        if let (Some(api), Some(door)) = (&self.api, door) {
            api.api.replace(door);
        }
        if let (Some(api), Some(rules)) = (&self.api, new.arrive_rules()) {
            api.api.understand(rules);
        }
        if let (Some(tls), Some(new)) = (&self.hl7_tls, hl7_tls) {
            tls.store(new);
        }
        if let Some(collecting) = &self.collecting {
            collecting.reload(&new, reports_tls);
        }
        self.view.routes.store(Arc::new(new.routes.clone()));
        self.receivers.store(Arc::new(new.receivers()));
        if let (Some(desk), Some(orders)) = (&self.view.orders, &new.orders) {
            // Routes have times of their own, which must be in force when cases are judged anew.
            let routes = |change: &Change| matches!(change, Change::Applied { key } if key.starts_with("route"));
            let told = desk.rules(orders.rules.clone(), all.iter().any(routes));
            let told = tokio::time::timeout(RULES_TIME, told).await;
            match told {
                Ok(Ok(())) => {}
                Ok(Err(e)) => said.push(format!("orders: the times stay as they were: {e}")),
                Err(_) => said.push("orders: the times count once the ledger is ready".into()),
            }
        }
        if let (Some(desk), Some(rules)) = (&self.view.reports, new.secretary()) {
            match tokio::time::timeout(RULES_TIME, desk.rules(rules)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => said.push(format!("reports: the rules stay as they were: {e}")),
                Err(_) => said.push("reports: the rules count once the ledger is ready".into()),
            }
        }
        let of_destination = |change: &Change| match change {
            Change::Applied { key } => key.starts_with("destination"),
            Change::NeedsRestart { .. } => false,
        };
        if all.iter().any(of_destination) || delivery_tls != self.delivery_tls {
            self.destinations.send_replace(destinations);
            self.delivery_tls = delivery_tls;
        }
        self.config = new;
        self.tasks.push(tokio::spawn(router::route_unrouted(self.view.clone())));
        said.push("certificates were read again".into());
        Ok(said)
    }
}

/// What stands in the files, as one digest. They have just been read: one that has gone since
/// counts as empty, and the next reload says so.
pub(super) fn digest_of(files: &[&Path]) -> Sha256 {
    let mut hasher = Hasher::new();
    for file in files {
        let bytes = std::fs::read(file).unwrap_or_default();
        hasher.update(&Sha256::of(&bytes).0);
    }
    hasher.finish()
}

/// The senders of a node, replaced when their destinations change. The old ones finish the object
/// in hand and release their associations first, in their own time: a reload does not wait for a
/// slow destination, and no destination sees more associations than configured.
pub(super) struct Senders {
    pub(super) wanted: watch::Receiver<Vec<Destination>>,
    pub(super) custody: Custody,
    pub(super) metrics: Metrics,
    pub(super) view: Arc<ops::View>,
    pub(super) sending: CancellationToken,
}

impl Senders {
    /// Starts the senders of the destinations that are wanted at the start.
    pub(super) fn start(
        wanted: &watch::Receiver<Vec<Destination>>,
        custody: &Custody,
        metrics: &Metrics,
        token: &CancellationToken,
    ) -> Arc<Delivery> {
        let destinations = wanted.borrow().clone();
        Arc::new(delivery::start(destinations, custody, metrics, token))
    }

    /// Replaces them at every change, until the node stops sending and the last ones have ended.
    pub(super) async fn keep(mut self, mut current: Arc<Delivery>, mut token: CancellationToken) {
        loop {
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { break },
                () = self.sending.cancelled() => break,
            }
            token.cancel();
            current.finished().await;
            token = self.sending.child_token();
            self.wanted.mark_unchanged();
            current = Self::start(&self.wanted, &self.custody, &self.metrics, &token);
            self.view.delivery.store(current.clone());
        }
        current.finished().await;
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Applied { key } => format!("{key}: applied"),
        Change::NeedsRestart { key, reason } => {
            format!("{key}: stays as it was until a restart, because {reason}")
        }
    }
}
