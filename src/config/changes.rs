//! What a new configuration changes in a running node, and what has to wait for a restart. Pure.

use std::collections::BTreeSet;

use super::{Config, Destination, DestinationKind};

/// One setting that differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// It counts from now on, for new associations, connections and cargo.
    Applied {
        /// The key, such as `dicom.allow` or `destination.reading-pacs.address`.
        key: String,
    },
    /// It counts from the next start on; until then the old setting stays.
    NeedsRestart {
        /// The key.
        key: String,
        /// Why it cannot change while the node runs.
        reason: &'static str,
    },
}

/// Keys that a running node takes over, by prefix; `*` stands for a name.
const APPLIED: [&str; 35] = [
    "api.client",
    "api.limits",
    "api.tls",
    "route",
    "destination",
    "dicom.ae_titles",
    "dicom.allow",
    "dicom.limits",
    "dicom.refuse_sop_classes",
    "dicom.tls",
    "spool.capacity",
    "spool.high_watermark",
    "spool.stat_watermark",
    "spool.reserve",
    "spool.quota_per_origin",
    "orders.settle",
    "orders.quiet",
    "orders.overdue",
    "orders.expected",
    "orders.hold_patient_mismatch",
    "orders.hl7.tls",
    "reports.alarm",
    "reports.critical",
    "reports.promises",
    "reports.signing",
    "reports.dicom",
    "reports.hl7.tls",
    "reports.issuer",
    "reports.unstated",
    "reports.unverified",
    "tunnel.certificate",
    "tunnel.key",
    "tunnel.trust",
    "tunnel.crl",
    "tunnel.peers.*.quota",
];

/// Why another key has to wait, by prefix.
const REASONS: [(&str, &str); 19] = [
    ("api.listen", "the listener is open"),
    ("node.name", "all cargo in custody carries the name as its origin"),
    ("node.data", "spool and ledger are open there"),
    ("dicom.listen", "the listener is open"),
    ("dicom.tls_listen", "the listener is open"),
    ("ops.listen", "the listener is open"),
    ("orders.hl7", "the listener is open"),
    ("orders.source", "it is being asked"),
    ("orders.priors", "what it chose is on its way"),
    ("orders.worklist", "the RIS is being asked"),
    ("orders.steps", "its receivers are being told"),
    ("orders", "whoever keeps orders was told it at the start"),
    ("reports.hl7", "the listener is open"),
    ("reports.folder", "it is being looked through"),
    ("reports", "whoever keeps reports was told it at the start"),
    ("tunnel.listen", "the socket is open, and every tunnel stands on it"),
    ("tunnel.limits", "both sides agree on them when a connection begins"),
    ("tunnel.peers", "its connection is being dialled or awaited"),
    ("drain", "all parts of the node were told it at the start"),
];

/// Whole sections that cannot come or go while the node runs.
const SECTIONS: [&str; 6] = ["dicom", "tunnel", "orders", "reports", "api", "api.tls"];

/// Whether `key` is `prefix`, or stands below it. Names may have dots, so `*` takes all it can.
fn has_prefix(key: &str, prefix: &str) -> bool {
    if let Some((before, after)) = prefix.split_once('*') {
        return key.starts_with(before) && key.ends_with(after);
    }
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Why `key` needs a restart; `None` when it does not.
fn restart_reason(key: &str, configs: [&Config; 2]) -> Option<&'static str> {
    let of_node = |destination: &Destination| {
        matches!(destination.kind, DestinationKind::Node { .. })
            && has_prefix(key, &format!("destination.{}", destination.name))
    };
    if configs.iter().flat_map(|config| &config.destinations).any(of_node) {
        return (!key.ends_with(".quota")).then_some("its tunnel is being dialled or awaited");
    }
    let of_home = |destination: &Destination| {
        let rest = key.strip_prefix(&format!("destination.{}.report", destination.name));
        rest.is_some_and(|rest| {
            ["s", "_pages", "_preliminary"].contains(&rest) || rest.starts_with('.')
        })
    };
    if configs.iter().flat_map(|config| &config.destinations).any(of_home) {
        return Some("whoever keeps reports was told it at the start");
    }
    if APPLIED.iter().any(|prefix| has_prefix(key, prefix)) {
        return None;
    }
    let reason = REASONS.iter().find(|(prefix, _)| has_prefix(key, prefix));
    Some(reason.map_or("it is read when the node starts", |(_, reason)| reason))
}

/// Whether `key` stands in a section that only one of the two has.
fn in_section_of_one(key: &str, old: &Config, new: &Config) -> bool {
    let has = |config: &Config, section: &str| match section {
        "dicom" => config.dicom.is_some(),
        "orders" => config.orders.is_some(),
        "reports" => config.reports.is_some(),
        "api" => config.api.is_some(),
        "api.tls" => config.api.as_ref().is_some_and(|api| api.tls.is_some()),
        _ => config.tunnel.is_some(),
    };
    SECTIONS.iter().any(|s| has(old, s) != has(new, s) && has_prefix(key, s))
}

/// What a reload that follows others changes: the node was started with `started`, has taken over
/// what it could of `current`, and is given `new`. What waits for a restart is named again at every
/// reload until the restart comes, or the setting is put back.
pub fn reloaded(started: &Config, current: &Config, new: &Config) -> Vec<Change> {
    let waits = changes(started, new);
    let applied = changes(current, new).into_iter().filter(|change| match change {
        Change::Applied { key } => !in_section_of_one(key, started, new),
        Change::NeedsRestart { .. } => false,
    });
    let waits = waits.into_iter().filter(|change| matches!(change, Change::NeedsRestart { .. }));
    applied.chain(waits).collect()
}

/// Every setting that differs, in the order of the keys.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut all = Vec::new();
    for section in SECTIONS {
        if in_section_of_one(section, old, new) {
            let reason = "the section decides which parts of the node are started";
            all.push(Change::NeedsRestart { key: section.into(), reason });
        }
    }
    let keys: BTreeSet<_> = old.settings.keys().chain(new.settings.keys()).collect();
    for key in keys {
        if old.settings.get(key) == new.settings.get(key) || in_section_of_one(key, old, new) {
            continue;
        }
        all.push(match restart_reason(key, [old, new]) {
            Some(reason) => Change::NeedsRestart { key: key.clone(), reason },
            None => Change::Applied { key: key.clone() },
        });
    }
    let order = |config: &Config| -> Vec<String> {
        config.routes.rules().iter().map(|rule| rule.name.clone()).collect()
    };
    let (before, after) = (order(old), order(new));
    let same_rules = before.iter().collect::<BTreeSet<_>>() == after.iter().collect();
    if same_rules && before != after {
        all.push(Change::Applied { key: "route".into() });
    }
    all
}
