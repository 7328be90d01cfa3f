//! `[[destination]]` of kind `hl7`: a RIS that takes orders, and what it is told about itself.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use crate::cargo::DestinationName;
use crate::delivery::backoff::Backoff;
use crate::delivery::{Hl7Target, Hl7Timeouts};
use crate::hl7::charset::Charset;
use crate::hl7::order::OrderType;
use crate::hl7::report::ReportDialect;
use crate::orders::registrar::{Receiver, Receivers};

use super::Config;
use super::orders::charset;
use super::read::{Document, backoff, client_tls};
use super::reader::Section;
use super::rooms::{TlsError, client};
use super::sections::{ClientTls, Destination, DestinationKind};
use super::source::Source;
use super::value::*;

/// A receiver of HL7 over MLLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hl7Destination {
    /// Where to connect.
    pub address: HostPort,
    /// TLS; `None`: plain.
    pub tls: Option<ClientTls>,
    /// Which message it takes.
    pub message: OrderType,
    /// MSH-3.
    pub sending_application: String,
    /// MSH-4; `None`: the name of the node.
    pub sending_facility: Option<String>,
    /// MSH-5; may be empty.
    pub receiving_application: String,
    /// MSH-6; may be empty.
    pub receiving_facility: String,
    /// MSH-11.
    pub processing_id: String,
    /// MSH-18.
    pub charset: Charset,
    /// Waits between tries while it is down.
    pub backoff: Backoff,
    /// `[destination.timeouts]`.
    pub timeouts: Hl7Timeouts,
}

pub(super) fn kind(s: &mut Section<'_, '_>) -> Option<DestinationKind> {
    let address = s.need("address", host_port);
    let tls = s.maybe_table("tls", client_tls);
    let message = s.or(
        "message",
        "\"OMI\"",
        word(&[("OMI", OrderType::Imaging), ("OMG", OrderType::General)]),
    );
    let sending_application = s.or("sending_application", "\"HIKYAKU\"", text);
    let sending_facility = s.maybe("sending_facility", text);
    let receiving_application = s.maybe("receiving_application", text).unwrap_or_default();
    let receiving_facility = s.maybe("receiving_facility", text).unwrap_or_default();
    let processing_id = s.or("processing_id", "\"P\"", text);
    let charset = s.or("charset", "\"UNICODE UTF-8\"", charset);
    let backoff = backoff(s);
    let timeouts = s.table("timeouts", |s| Hl7Timeouts {
        connect: s.or("connect", "\"10s\"", duration),
        response: s.or("response", "\"30s\"", duration),
    });
    Some(DestinationKind::Hl7(Box::new(Hl7Destination {
        address: address?,
        tls,
        message,
        sending_application,
        sending_facility,
        receiving_application,
        receiving_facility,
        processing_id,
        charset,
        backoff,
        timeouts,
    })))
}

/// The destinations that take messages and no images.
pub(super) fn names(destinations: &[Destination]) -> BTreeSet<DestinationName> {
    let hl7 = destinations.iter().filter(|d| matches!(d.kind, DestinationKind::Hl7(_)));
    hl7.map(|d| d.name.clone()).collect()
}

/// Reports what does not fit together.
pub(super) fn check(
    source: &mut Source<'_>,
    key: &str,
    destination: &Destination,
    document: &Document,
) {
    // Reports need orders, too; what takes them says so itself.
    if destination.home.is_none() && document.orders.is_none() && !source.has_key("orders") {
        source.problem(
            key,
            "of kind hl7 takes orders, but this node keeps none",
            "add an [orders] section, or remove the destination",
        );
    }
}

impl Hl7Destination {
    /// What delivery is started with; reads the files of TLS.
    pub(super) fn target(&self) -> Result<Hl7Target, TlsError> {
        let HostPort { host, port } = self.address.clone();
        let tls = self.tls.as_ref().map(|tls| client(tls, &host)).transpose()?;
        Ok(Hl7Target { host, port, tls, charset: self.charset, timeouts: self.timeouts })
    }

    /// What all messages to it have in common.
    pub(super) fn address(&self, node: &str, dialect: &mut ReportDialect) {
        let Receiver { from, to, processing_id, charset, .. } = self.receiver(node);
        (dialect.from, dialect.to) = (from, to);
        (dialect.processing_id, dialect.charset) = (processing_id, charset);
    }

    /// In plain words, for `check-config`.
    pub(super) fn describe(&self, out: &mut String) -> fmt::Result {
        let message = match self.message {
            OrderType::Imaging => "OMI^O23",
            OrderType::General => "OMG^O19",
        };
        let tls = if self.tls.is_some() { " with TLS" } else { "" };
        write!(out, "orders as {message} to {}{tls}; no images", self.address)
    }

    fn receiver(&self, node: &str) -> Receiver {
        let facility = self.sending_facility.as_deref().unwrap_or(node);
        Receiver {
            order_type: self.message,
            from: (self.sending_application.clone(), facility.to_owned()),
            to: (self.receiving_application.clone(), self.receiving_facility.clone()),
            processing_id: self.processing_id.clone(),
            charset: self.charset,
        }
    }
}

impl Config {
    /// The destinations that take orders by HL7, and how.
    pub fn receivers(&self) -> Receivers {
        let node = self.node.name.as_str();
        let hl7 = self.destinations.iter().filter_map(|d| match &d.kind {
            DestinationKind::Hl7(hl7) => Some((d.name.clone(), hl7.receiver(node))),
            _ => None,
        });
        hl7.collect()
    }
}
