//! `[orders.steps]`: to whom performed procedure steps are passed on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::reader::Section;
use super::rooms::{TlsError, client};
use super::sections::ClientTls;
use super::source::Source;
use super::value::*;
use super::{Config, read};
use crate::dicom::AeTitle;
use crate::inquiry::{Target, Timeouts};
use crate::orders::passing::{self, Receiver};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most receivers.
const RECEIVERS_MAX: usize = 16;

/// `[orders.steps]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepsSection {
    /// Other MPPS SCPs.
    pub pass_on_to: Vec<StepReceiver>,
    /// A step that one of them refuses for so long is given up there.
    pub give_up: Duration,
}

/// One of `[[orders.steps.pass_on_to]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReceiver {
    /// Its name, unique among them.
    pub name: String,
    /// Where to connect.
    pub address: HostPort,
    /// Called AE title.
    pub ae_title: AeTitle,
    /// Calling AE title.
    pub calling_ae: AeTitle,
    /// TLS; `None`: plain.
    pub tls: Option<ClientTls>,
    /// `timeouts`.
    pub timeouts: Timeouts,
}

pub(super) fn section(s: &mut Section<'_, '_>, own: &AeTitle) -> StepsSection {
    let receivers = s.tables("pass_on_to", |s| {
        let name = s.need("name", text);
        let (address, called) = (s.need("address", host_port), s.need("ae_title", ae_title));
        let calling = s.maybe("calling_ae", ae_title);
        let tls = s.maybe_table("tls", read::client_tls);
        let timeouts = s.table("timeouts", |s| Timeouts {
            connect: s.or("connect", "\"10s\"", duration),
            associate: s.or("associate", "\"30s\"", duration),
            write: s.or("write", "\"60s\"", duration),
            response: s.or("response", "\"2m\"", duration),
            ..Timeouts::default()
        });
        Some(StepReceiver {
            name: name?,
            address: address?,
            ae_title: called?,
            calling_ae: calling.unwrap_or_else(|| own.clone()),
            tls,
            timeouts,
        })
    });
    StepsSection {
        pass_on_to: receivers.into_iter().map(|(_, receiver)| receiver).collect(),
        give_up: s.or("give_up", "\"7d\"", duration),
    }
}

pub(super) fn check(section: &StepsSection, source: &mut Source<'_>) {
    if section.give_up > 90 * DAY {
        source.problem("orders.steps.give_up", "is too long", "90 days at most");
    }
    if section.pass_on_to.len() > RECEIVERS_MAX {
        let what = format!("has more than {RECEIVERS_MAX} entries");
        source.problem("orders.steps.pass_on_to", what, "leave some out");
    }
    let mut names = BTreeSet::new();
    for receiver in &section.pass_on_to {
        if !names.insert(&receiver.name) {
            let what = format!("names {} twice", receiver.name);
            source.problem("orders.steps.pass_on_to", what, "give each receiver a name of its own");
        }
    }
}

impl Config {
    /// To whom steps are passed on; reads the files of TLS. `None`: to nobody, and nothing is left
    /// to be passed on from before.
    ///
    /// # Errors
    ///
    /// A certificate or key that cannot be used.
    pub fn passing(&self) -> Result<Option<passing::Config>, TlsError> {
        let Some(orders) = &self.orders else { return Ok(None) };
        let receiver = |r: &StepReceiver| {
            let tls = r.tls.as_ref().map(|tls| client(tls, &r.address.host)).transpose()?;
            let target = Target {
                host: r.address.host.clone(),
                port: r.address.port,
                calling: r.calling_ae.clone(),
                called: r.ae_title.clone(),
                tls,
                timeouts: r.timeouts,
            };
            Ok(Receiver { name: r.name.clone(), target })
        };
        let receivers = orders.steps.pass_on_to.iter().map(receiver);
        let receivers = receivers.collect::<Result<_, TlsError>>()?;
        Ok(Some(passing::Config { receivers, give_up: orders.steps.give_up }))
    }
}
