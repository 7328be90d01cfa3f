//! What a new configuration changes in a running node, and what has to wait for a restart. Pure.

use std::collections::BTreeSet;

use super::Config;

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

/// Keys that cannot change while the node runs, by prefix.
const NEEDS_RESTART: [(&str, &str); 13] = [
    ("node.name", "all cargo in custody carries the name as its origin"),
    ("node.data", "spool and ledger are open there"),
    ("dicom.listen", "the listener is open"),
    ("dicom.tls_listen", "the listener is open"),
    ("dicom.limits", "the limits are built into the open listener"),
    ("tunnel.listen", "the socket is open, and every tunnel stands on it"),
    ("tunnel.limits", "they are agreed when a connection begins"),
    ("spool.memory", "the budget is handed out when the node starts"),
    ("spool.in_memory", "the budget is handed out when the node starts"),
    ("spool.segment", "the open segment has been laid out"),
    ("spool.capacity", "space has been reserved by it"),
    ("spool.reserve", "space has been reserved by it"),
    ("ops.listen", "the listener is open"),
];

/// Whole sections that cannot come or go while the node runs.
const SECTIONS: [&str; 2] = ["dicom", "tunnel"];

fn has_prefix(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Every setting that differs, in the order of the keys.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let has = |config: &Config, section: &str| match section {
        "dicom" => config.dicom.is_some(),
        _ => config.tunnel.is_some(),
    };
    let mut all = Vec::new();
    for section in SECTIONS {
        if has(old, section) != has(new, section) {
            let reason = "the section decides which parts of the node are started";
            all.push(Change::NeedsRestart { key: section.into(), reason });
        }
    }
    let appeared =
        |key: &str| SECTIONS.iter().any(|s| has(old, s) != has(new, s) && has_prefix(key, s));
    let keys: BTreeSet<_> = old.settings.keys().chain(new.settings.keys()).collect();
    for key in keys {
        if old.settings.get(key) == new.settings.get(key) || appeared(key) {
            continue;
        }
        let restart = NEEDS_RESTART.iter().find(|(prefix, _)| has_prefix(key, prefix));
        all.push(match restart {
            Some((_, reason)) => Change::NeedsRestart { key: key.clone(), reason },
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
