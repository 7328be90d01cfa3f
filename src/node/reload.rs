//! SIGHUP: certificates and configuration are read again; what cannot change while running stays
//! and is named with its reason.

use std::sync::Arc;

use super::{Node, disk_size, owed, router};
use crate::config::{Change, Config, changes};
use crate::delivery;

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
        let intake_tls = new.intake_tls().map_err(|e| vec![e.to_string()])?;
        if let Some(tunnel) = &self.tunnel {
            tunnel.reload().map_err(|e| vec![e.to_string()])?;
        }
        let all = changes(&self.config, &new);
        let mut said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        said.extend(all.iter().map(describe));
        self.custody.set_room(new.room(disk_size(&new)));
        if let (Some(config), Some(section)) = (&self.intake_config, new.intake()) {
            config.store(Arc::new(section));
        }
        if let (Some(tls), Some(new)) = (&self.intake_tls, intake_tls) {
            tls.store(new);
        }
        self.view.routes.store(Arc::new(new.routes.clone()));
        if all
            .iter()
            .any(|c| matches!(c, Change::Applied { key } if key.starts_with("destination")))
        {
            self.replace_senders(destinations).await;
        }
        self.config = new;
        self.tasks.push(tokio::spawn(router::route_unrouted(self.view.clone())));
        said.push("certificates were read again".into());
        Ok(said)
    }

    /// Ends the senders after the object in hand and starts the new ones.
    async fn replace_senders(&self, destinations: Vec<delivery::Destination>) {
        let mut current = self.delivery.lock().await;
        current.1.cancel();
        current.0.finished().await;
        let token = self.sending.child_token();
        let started = Arc::new(delivery::start(destinations, &self.custody, &self.metrics, &token));
        self.view.delivery.store(started.clone());
        *current = (started, token);
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
