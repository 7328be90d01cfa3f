//! A real intake with real custody on a port of its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use hikyaku::custody::{CargoId, Config as CustodyConfig, Custody};
use hikyaku::inquiry::{Target, Timeouts};
use hikyaku::intake::{self, Allow, Config, Intake, Limits, Listeners, Services};
use hikyaku::metrics::Metrics;
use hikyaku::routing::Table;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::recorder::{Recorder, Seen};

/// Longest wait for anything here; only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Site {
    pub(crate) port: u16,
    custody: Custody,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    _data: TempDir,
}

impl Site {
    pub(crate) async fn start(recorder: Recorder) -> Self {
        Self::with(recorder, Limits::default()).await
    }

    pub(crate) async fn with(recorder: Recorder, limits: Limits) -> Self {
        let seen = recorder.seen.clone();
        Self::build(Some(Arc::new(recorder)), seen, limits).await
    }

    /// Without anybody to perform the services.
    pub(crate) async fn storage_only() -> Self {
        Self::build(None, Arc::default(), Limits::default()).await
    }

    async fn build(
        services: Option<Arc<dyn Services>>,
        seen: Arc<Mutex<Seen>>,
        limits: Limits,
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let folder = data.path().join("data");
        let mut config = CustodyConfig::new("st-elsewhere".parse().unwrap(), folder);
        config.room.capacity = Some(4 << 30);
        config.room.reserve = 1 << 20;
        let custody = Custody::open(config, metrics.clone()).unwrap();
        let allow = Allow { ae_title: None, network: "127.0.0.0/8".parse().unwrap() };
        let config = Config {
            listen: None,
            tls_listen: None,
            ae_titles: vec!["HIKYAKU".parse().unwrap()],
            allow: vec![allow],
            refuse_sop_classes: [].into(),
            limits,
        };
        let intake = Intake {
            config: Arc::new(ArcSwap::from_pointee(config)),
            custody: custody.clone(),
            router: Arc::new(ArcSwap::from_pointee(Table::new(vec![]))),
            services,
            metrics,
        };
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = plain.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let listeners = Listeners { plain: Some(plain), tls: None };
        tokio::spawn(intake::serve(listeners, Arc::new(intake), stop.clone()));
        Self { port, custody, seen, stop, _data: data }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// The SOP Instance UIDs of the images in custody; there is no route, so none is owed.
    pub(crate) async fn images(&self) -> BTreeSet<String> {
        let found = self.custody.unrouted(CargoId(0), 1000).await.unwrap();
        found.into_iter().map(|(_, envelope, _)| envelope.identity.key).collect()
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Seen) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !so(&self.seen()) {
            assert!(tokio::time::Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Somebody to ask at this port.
pub(crate) fn target(port: u16, called: &str) -> Target {
    Target {
        host: "127.0.0.1".into(),
        port,
        calling: "HIKYAKU".parse().unwrap(),
        called: called.parse().unwrap(),
        tls: None,
        timeouts: Timeouts { response: PATIENCE, ..Timeouts::default() },
    }
}
