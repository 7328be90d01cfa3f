//! What a node with this configuration would do, in plain words. Pure.

use std::fmt::{self, Display, Write};

use crate::delivery::Reencode;
use crate::routing::{Condition, Rule};

use super::value::{show_duration as time, show_size as size};
use super::{homes, *};

/// A description for `check-config`: who listens where and for whom, what goes where, and the
/// limits. Lines of text, each section with a heading.
pub fn describe(config: &Config) -> String {
    let mut out = String::new();
    write(&mut out, config).expect("a String takes all text");
    out
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn write(out: &mut String, config: &Config) -> fmt::Result {
    let node = &config.node;
    writeln!(out, "node {}", node.name)?;
    writeln!(out, "  keeps everything under {}", node.data.display())?;
    match &config.dicom {
        Some(dicom) => write_dicom(out, dicom)?,
        None => writeln!(out, "  takes no images over DICOM (no [dicom] section)")?,
    }
    match &config.tunnel {
        Some(tunnel) => write_tunnel(out, config, tunnel)?,
        None => writeln!(out, "  speaks to no other node (no [tunnel] section)")?,
    }
    if let Some(orders) = &config.orders {
        write_orders(out, orders)?;
    }
    if let Some(reports) = &config.reports {
        write_reports(out, reports)?;
        reports.collect.describe(out)?;
    }
    if let Some(api) = &config.api {
        write_api(out, api)?;
    }
    writeln!(out, "destinations")?;
    for destination in &config.destinations {
        write_destination(out, destination)?;
    }
    writeln!(out, "routes (all that match apply)")?;
    for rule in config.routes.rules() {
        write_rule(out, rule)?;
    }
    writeln!(out, "  what no route matches is kept and shown as unrouted")?;
    write_spool(out, &config.spool)?;
    writeln!(out, "running")?;
    writeln!(out, "  metrics and health: http://{}/metrics and /health", config.ops.listen)?;
    writeln!(out, "  stops within {} of SIGTERM", time(config.drain.timeout))
}

fn write_dicom(out: &mut String, dicom: &DicomSection) -> fmt::Result {
    writeln!(out, "DICOM")?;
    if let Some(address) = dicom.listen {
        writeln!(out, "  listens on {address} (not encrypted)")?;
    }
    if let Some(address) = dicom.tls_listen {
        let asks = dicom.tls.as_ref().is_some_and(|tls| tls.trust.is_some());
        let asks = if asks { "senders need a certificate" } else { "senders need none" };
        writeln!(out, "  listens on {address} with TLS; {asks}")?;
    }
    writeln!(out, "  answers to {}", list(&dicom.ae_titles))?;
    for Allow { ae_title, address } in &dicom.allow {
        let title = ae_title.as_ref().map_or("any AE title", |title| title.as_str());
        match address {
            Some(network) => writeln!(out, "  lets {title} from {network} send")?,
            None => writeln!(out, "  lets {title} from any address send")?,
        }
    }
    if !dicom.refuse_sop_classes.is_empty() {
        writeln!(out, "  refuses SOP classes {}", list(&dicom.refuse_sop_classes))?;
    }
    let limits = &dicom.limits;
    writeln!(
        out,
        "  at most {} associations, {} from one address",
        limits.associations, limits.associations_per_address
    )
}

fn write_reports(out: &mut String, reports: &ReportsSection) -> fmt::Result {
    writeln!(out, "reports")?;
    writeln!(out, "  kept for {} once they are delivered", time(reports.keep))?;
    for rung in &reports.ladder.rungs {
        let after = match rung.after.is_zero() {
            true => "at once".to_owned(),
            false => format!("after {}", time(rung.after)),
        };
        writeln!(out, "  of a critical result {after} told to {}", list(&rung.to))?;
    }
    if !reports.ladder.rungs.is_empty() {
        let again = time(reports.ladder.repeat);
        writeln!(out, "  and to the last of them every {again} until a person says that he knows")?;
    }
    for (urgency, by) in &reports.promises.report {
        writeln!(out, "  a {} report is overdue after {}", urgency.as_str(), time(*by))?;
    }
    if reports.signing.is_empty() {
        writeln!(out, "  final reports must be signed, by anybody")?;
    }
    for signing in &reports.signing {
        let of = match signing.hospitals.is_empty() {
            true => "all hospitals".to_owned(),
            false => list(&signing.hospitals),
        };
        let by = match (signing.rules.allow.len(), signing.rules.unsigned) {
            (0, true) => "by anybody or nobody".to_owned(),
            (0, false) => "by anybody".to_owned(),
            (n, _) => format!("by one of {n} listed signers"),
        };
        writeln!(out, "  final reports of {of} are signed {by}")?;
    }
    Ok(())
}

fn write_orders(out: &mut String, orders: &OrdersSection) -> fmt::Result {
    writeln!(out, "orders")?;
    if let Some(hl7) = &orders.hl7 {
        for (address, how) in [(hl7.listen, "not encrypted"), (hl7.tls_listen, "with TLS")] {
            if let Some(address) = address {
                writeln!(out, "  takes HL7 orders on {address} ({how})")?;
            }
        }
        writeln!(out, "  lets {} send them", list(&hl7.mllp.allow))?;
    }
    for (_, worklist) in &orders.worklists {
        let tls = if worklist.tls.is_some() { " with TLS" } else { "" };
        let (every, behind, ahead) = (worklist.every, worklist.behind, worklist.ahead);
        writeln!(
            out,
            "  asks {} at {}{tls} for its worklist every {}: from {} back to {} ahead",
            worklist.ae_title,
            worklist.address,
            time(every),
            time(behind),
            time(ahead)
        )?;
    }
    writeln!(out, "  answers worklist queries to whoever may send images")?;
    for r in &orders.steps.pass_on_to {
        writeln!(
            out,
            "  passes performed procedure steps on to {} ({} at {})",
            r.name, r.ae_title, r.address
        )?;
    }
    let rules = &orders.rules;
    writeln!(
        out,
        "  images that lack are told {} after the last word, studies are presumed complete after {}",
        time(rules.settle),
        time(rules.quiet)
    )?;
    writeln!(out, "  orders without images are overdue {} after their time", time(rules.overdue))?;
    for source in &orders.sources {
        let of = match source.of.as_slice() {
            [] => "all senders".to_owned(),
            of => list(of.iter().map(|pattern| pattern.as_str())),
        };
        writeln!(
            out,
            "  asks {} ({} at {}) for what lacks of {of}, {} times in {}",
            source.name,
            source.ae_title,
            source.address,
            source.rules.rounds_max,
            time(source.rules.patience)
        )?;
    }
    for rule in &orders.priors {
        let (most, source) = (rule.studies_max, &rule.source);
        writeln!(
            out,
            "  fetches up to {most} earlier studies from {source} for orders by {}, as {}",
            rule.name, rule.urgency
        )?;
    }
    for (_, notice) in &orders.notices {
        let whom = match notice.rule.stations.as_slice() {
            [] => "every station".to_owned(),
            some => list(some.iter().map(|p| p.as_str())),
        };
        let webhook = notice.webhook.iter().map(|w| w.url.to_string());
        let by = list(webhook.chain(notice.mail.iter().map(|to| to.email.to_string())));
        let (name, within) = (&notice.rule.name, time(notice.rule.rules.within));
        writeln!(out, "  {name}: what needs attention of {whom} is told within {within} to {by}")?;
    }
    Ok(())
}

fn write_api(out: &mut String, api: &ApiSection) -> fmt::Result {
    let how = match &api.tls {
        None => "plain HTTP, for this machine only",
        Some(_) => "HTTP with TLS",
    };
    writeln!(out, "API for other systems")?;
    writeln!(out, "  listens on {} ({how})", api.listen)?;
    for client in &api.clients {
        let by = match &client.certificate {
            Some(name) => format!("the certificate of {name}"),
            None => "a token".into(),
        };
        write!(out, "  lets {} {} by {by}", client.name, list(&client.may))?;
        match client.networks.as_slice() {
            [] => writeln!(out, ", from any address")?,
            networks => writeln!(out, ", from {}", list(networks))?,
        }
    }
    Ok(())
}

fn write_tunnel(out: &mut String, config: &Config, tunnel: &TunnelSection) -> fmt::Result {
    writeln!(out, "tunnel (QUIC, TLS 1.3, both sides by certificate)")?;
    writeln!(out, "  is {} by {}", config.node.name, tunnel.certificate.display())?;
    writeln!(out, "  believes the authorities in {}", tunnel.trust.display())?;
    match tunnel.crl.as_slice() {
        [] => writeln!(out, "  checks no revocation list")?,
        lists => {
            writeln!(out, "  refuses what {} revokes", list(lists.iter().map(|l| l.display())))?
        }
    }
    match tunnel.listen {
        Some(address) => writeln!(out, "  listens on UDP {address}")?,
        None => writeln!(out, "  dials out only; needs no inbound port")?,
    }
    for (name, relay) in config.peers() {
        match relay {
            [] => writeln!(out, "  {name} may connect and bring its own cargo")?,
            _ => writeln!(
                out,
                "  {name} may connect and bring its own cargo and that of {}",
                list(relay)
            )?,
        }
    }
    Ok(())
}

fn write_destination(out: &mut String, destination: &Destination) -> fmt::Result {
    write!(out, "  {}: ", destination.name)?;
    match &destination.kind {
        DestinationKind::Node { address: Some(address) } => write!(out, "the node at {address}")?,
        DestinationKind::Node { address: None } => write!(out, "the node, when it dials us")?,
        DestinationKind::Folder { path, .. } => write!(out, "Part 10 files in {}", path.display())?,
        DestinationKind::Hl7(hl7) => hl7.describe(out)?,
        DestinationKind::Dicom(dicom) => {
            let tls = if dicom.tls.is_some() { " with TLS" } else { "" };
            write!(
                out,
                "C-STORE to {} at {}{tls}, calling as {}, {} at a time",
                dicom.ae_title, dicom.address, dicom.calling_ae, dicom.associations
            )?;
            if dicom.reencode == Reencode::Native {
                write!(out, ", native syntaxes re-encoded if need be")?;
            }
        }
    }
    if let Some(home) = &destination.home {
        write!(out, "; {}", homes::describe(home))?;
    }
    match destination.quota {
        Some(quota) => writeln!(out, "; at most {quota} of the spool"),
        None => writeln!(out),
    }
}

fn condition(condition: &Condition) -> String {
    let patterns: Vec<_> =
        condition.patterns.iter().map(|pattern| format!("\"{}\"", pattern.as_str())).collect();
    format!("{} is {}", condition.field.name(), patterns.join(" or "))
}

fn write_rule(out: &mut String, rule: &Rule) -> fmt::Result {
    let when = match rule.when.as_slice() {
        [] => "everything".to_owned(),
        all => format!("when {}", all.iter().map(condition).collect::<Vec<_>>().join(" and ")),
    };
    write!(out, "  {}: {when} -> {}", rule.name, list(&rule.to))?;
    if let Some(urgency) = rule.urgency {
        write!(out, ", as {urgency}")?;
    }
    if let Some(reason) = &rule.hold {
        write!(out, ", held for a person: {reason}")?;
    }
    if rule.correct {
        write!(out, ", corrected as its order says")?;
    }
    writeln!(out, "{}", if rule.last { ", and no later route" } else { "" })
}

fn write_spool(out: &mut String, spool: &SpoolSection) -> fmt::Result {
    writeln!(out, "spool")?;
    let capacity = spool.capacity.map_or("its file system".to_owned(), size);
    writeln!(
        out,
        "  refuses routine cargo above {} % of {capacity}, STAT above {} %; {} stay free",
        spool.high_watermark,
        spool.stat_watermark,
        size(spool.reserve)
    )?;
    writeln!(out, "  takes objects up to {}", size(spool.object))?;
    if let Some(quota) = spool.quota_per_origin {
        writeln!(out, "  each origin may use {quota}")?;
    }
    writeln!(
        out,
        "  frees bytes {} after the last receipt, forgets that they were here {} later",
        time(spool.retention),
        time(spool.tombstones)
    )
}
