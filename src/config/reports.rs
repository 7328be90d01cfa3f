//! `[reports]`: reports that come home, who may sign them, and who must have seen them.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::de::DeValue;

use super::Config;
use super::collect::{self, CollectSection};
use super::read::Document;
use super::reader::Section;
use super::source::Source;
use super::value::*;
use crate::cargo::{NodeName, Urgency};
use crate::orders::identifier::Identifier;
use crate::reports::critical::{Flagging, Ladder, RUNGS_MAX, Rung};
use crate::reports::secretary::{self, Signing};
use crate::reports::signers::{SIGNERS_MAX, Signer, SignerRules};
use crate::reports::turnaround::Promises;

/// Longest time after which it is asked what became of a patient.
const FOLLOW_UP_LONGEST: Duration = Duration::from_secs(2 * 366 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
/// Longest of all times but `keep`.
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// `[reports]`: present: this node keeps reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportsSection {
    /// How long the bytes of a report are kept after it is delivered.
    pub keep: Duration,
    /// What is critical.
    pub flagging: Flagging,
    /// Who is told of a critical result, and when.
    pub ladder: Ladder,
    /// By when what is promised.
    pub promises: Promises,
    /// Who may sign.
    pub signing: Vec<Signing>,
    /// How long a system may go without a yes before people are told.
    pub alarm: Duration,
    /// The ways in.
    pub collect: CollectSection,
}

pub(super) fn section(s: &mut Section<'_, '_>) -> Option<ReportsSection> {
    let keep = s.or("keep", "\"90d\"", duration_from(DAY));
    let alarm = s.or("alarm", "\"1h\"", duration_from(MINUTE));
    let critical = s.table("critical", critical);
    let promises = s.table("promises", promises);
    let signing = s.tables("signing", signing);
    let (flagging, ladder) = critical;
    let signing = signing.into_iter().map(|(_, signing)| signing).collect();
    let collect = collect::section(s);
    Some(ReportsSection { keep, flagging, ladder, promises, signing, alarm, collect })
}

fn critical(s: &mut Section<'_, '_>) -> (Flagging, Ladder) {
    let flags = s.or("flags", r#"["AA", "HH", "LL"]"#, list(text));
    let codes = s.or("codes", r#"["RID49480^RadLex"]"#, list(code));
    let titles = s.or("titles", "[]", list(text));
    let repeat = s.or("repeat", "\"15m\"", duration_from(MINUTE));
    let rungs = s.tables("rung", |s| {
        let after = s.or("after", "\"0s\"", duration_from(Duration::ZERO));
        let to = s.need_one_or_list("to", text);
        Some(Rung { after, to: to? })
    });
    let rungs = rungs.into_iter().map(|(_, rung)| rung).collect();
    let (flags, codes) = (flags.into_iter().collect(), codes.into_iter().collect());
    (Flagging { flags, codes, title_words: titles }, Ladder { rungs, repeat })
}

fn promises(s: &mut Section<'_, '_>) -> Promises {
    let receipt = s.or("receipt", "\"48h\"", duration_from(MINUTE));
    let acknowledgement = s.or("acknowledgement", "\"4h\"", promise);
    let follow_up = s.or("follow_up", "\"none\"", promise);
    let of = [
        (Urgency::Stat, s.or("stat", "\"1h\"", promise)),
        (Urgency::Urgent, s.or("urgent", "\"4h\"", promise)),
        (Urgency::Routine, s.or("routine", "\"72h\"", promise)),
        (Urgency::Bulk, s.or("bulk", "\"none\"", promise)),
    ];
    let report = of.into_iter().filter_map(|(urgency, by)| Some((urgency, by?))).collect();
    Promises { receipt: Some(receipt), report, acknowledgement, follow_up }
}

fn signing(s: &mut Section<'_, '_>) -> Option<Signing> {
    let hospitals = s.one_or_list("hospitals", parsed::<NodeName>).unwrap_or_default();
    let allow = s.tables("allow", |s| {
        let id = s.maybe("id", text).unwrap_or_default();
        let issuer = s.maybe("issuer", text).unwrap_or_default();
        let name = s.maybe("name", text).unwrap_or_default();
        if id.is_empty() && name.is_empty() {
            s.problem("id", "is missing, and so is name", "write the signer's number, or a name");
        }
        Some(Signer { id: Identifier::of(&id, &issuer), name })
    });
    let allow = allow.into_iter().map(|(_, signer)| signer).collect();
    let preliminary = s.or("preliminary", "false", boolean);
    let unsigned = s.or("unsigned", "false", boolean);
    Some(Signing { hospitals, rules: SignerRules { allow, preliminary, unsigned } })
}

/// A list, each item by `one`.
fn list<T>(
    one: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, Wrong> {
    move |value| match value {
        DeValue::Array(items) => items.iter().map(|item| one(item.get_ref())).collect(),
        other => Err(mismatch(other, "a list in square brackets")),
    }
}

/// `value^scheme`.
fn code(value: &DeValue<'_>) -> Result<(String, String), Wrong> {
    let written = text(value)?;
    match written.split_once('^') {
        Some((value, scheme)) if !value.is_empty() && !scheme.is_empty() => {
            Ok((value.to_owned(), scheme.to_owned()))
        }
        _ => {
            let advice = "write value and scheme, such as \"RID49480^RadLex\"";
            Err(wrong(format!("\"{written}\" is no code"), advice))
        }
    }
}

/// A time, or `none`: nothing is promised.
fn promise(value: &DeValue<'_>) -> Result<Option<Duration>, Wrong> {
    match value.as_str() {
        Some("none") => Ok(None),
        _ => duration_from(MINUTE)(value).map(Some),
    }
}

/// Reports what does not fit together.
pub(super) fn check(source: &mut Source<'_>, document: &Document) {
    let Some(reports) = &document.reports else { return };
    // That there are none is told with the ways in.
    let Some(orders) = &document.orders else { return };
    let rules: BTreeSet<&str> =
        orders.notices.iter().map(|(_, section)| section.rule.name.as_str()).collect();
    let rungs = &reports.ladder.rungs;
    for (i, rung) in rungs.iter().enumerate() {
        let key = format!("reports.critical.rung[{i}]");
        for name in rung.to.iter().filter(|name| !rules.contains(name.as_str())) {
            let what = format!("{name} is no rule that tells anybody");
            let advice = "write the name of an [[orders.notice]]";
            source.problem(&format!("{key}.to"), what, advice);
        }
        if i > 0 && rungs[i - 1].after >= rung.after {
            let advice = "write the rungs in the order of time";
            source.problem(&format!("{key}.after"), "is not later than the rung before", advice);
        }
    }
    if rungs.len() > RUNGS_MAX {
        let what = format!("has {} rungs", rungs.len());
        source.problem("reports.critical.rung", what, format!("{RUNGS_MAX} at most"));
    }
    // Who expects orders is a hospital, where people must hear of critical results.
    if rungs.is_empty() && orders.rules.orders_expected {
        source.warning(
            "reports.critical.rung",
            "is missing: nobody is told of a critical result",
            "add [[reports.critical.rung]] with to = the name of an [[orders.notice]]",
        );
    }
    let in_by = &reports.collect;
    let collects = in_by.hl7.is_some() || !in_by.dicom.is_empty() || !in_by.folders.is_empty();
    for key in ["flags", "codes", "titles"].map(|key| format!("reports.critical.{key}")) {
        if source.has_key(&key) && !collects && document.api.is_none() {
            let what = "has no effect: it counts where reports are collected, and none are here";
            source.warning(&key, what, "agree on it with the reading centre, and write it there");
        }
    }
    let promises = &reports.promises;
    let times = promises.report.values().chain(&promises.receipt).chain(&promises.acknowledgement);
    let times = times.chain([&reports.alarm, &reports.ladder.repeat]);
    if times.chain(rungs.iter().map(|rung| &rung.after)).any(|time| *time > LONGEST) {
        let what = "has a time of more than 90 days, which nobody waits for";
        source.problem("reports", what, "write a shorter one, or \"none\" where it is a promise");
    }
    if promises.follow_up.is_some_and(|time| time > FOLLOW_UP_LONGEST) {
        let what = "is more than two years";
        source.problem("reports.promises.follow_up", what, "write a shorter time, or \"none\"");
    }
    check_signing(reports, source);
}

fn check_signing(reports: &ReportsSection, source: &mut Source<'_>) {
    let mut known = BTreeSet::new();
    let mut all = false;
    for (i, signing) in reports.signing.iter().enumerate() {
        let key = format!("reports.signing[{i}]");
        let new = signing.hospitals.iter().filter(|hospital| known.insert(*hospital)).count();
        if all || (!signing.hospitals.is_empty() && new == 0) {
            let advice =
                "of several that fit a hospital the first counts: move it up, or leave it out";
            source.problem(&key, "is never asked", advice);
        }
        all |= signing.hospitals.is_empty();
        let SignerRules { allow, unsigned, .. } = &signing.rules;
        if allow.len() > SIGNERS_MAX {
            let what = format!("lists {} signers", allow.len());
            source.problem(&format!("{key}.allow"), what, format!("{SIGNERS_MAX} at most"));
        }
        if *unsigned && !allow.is_empty() {
            let advice = "with a list of signers somebody on it must sign: leave one of them out";
            source.problem(&format!("{key}.unsigned"), "contradicts allow", advice);
        }
    }
}

impl Config {
    /// How the secretary works; `None`: this node keeps no reports.
    pub fn secretary(&self) -> Option<secretary::Config> {
        let (reports, orders) = (self.reports.as_ref()?, self.orders.as_ref()?);
        Some(secretary::Config {
            node: self.node.name.clone(),
            peers: self.peers().into_keys().collect(),
            zone: orders.zone.clone(),
            homes: self.homes(),
            notices: orders.notices.iter().map(|(_, n)| n.rule.clone()).collect(),
            signing: reports.signing.clone(),
            ladder: reports.ladder.clone(),
            promises: reports.promises.clone(),
            alarm: reports.alarm,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::reports::report::Status;

    const NODE: &str = "[node]\nname = 'a'\n[dicom]\nlisten = '127.0.0.1:1'\nae_titles = 'A'\n\
                        allow = [{ address = '10.0.0.1' }]\n[[destination]]\nname = 'f'\n\
                        kind = 'folder'\npath = 'f'\n[[route]]\nname = 'r'\nto = 'f'\n";
    const NOTICE: &str = "[[orders.notice]]\nname='duty'\nwebhook={url='https://c.example'}\n";

    fn read(lines: &str) -> Result<(Config, String), String> {
        let parsed = Config::parse(&format!("{NODE}{lines}"), Path::new("x.toml"));
        match parsed {
            Ok((config, warnings)) => {
                Ok((config, warnings.iter().map(ToString::to_string).collect()))
            }
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    fn said(lines: &str) -> String {
        read(lines).map_or_else(|problems| problems, |(_, warnings)| warnings)
    }

    #[test]
    fn a_rung_tells_by_a_rule_that_there_is_and_later_than_the_one_before() {
        let rung = |lines: &str| said(&format!("{NOTICE}[[reports.critical.rung]]\n{lines}"));
        assert_eq!(rung("to = 'duty'"), "");
        assert!(rung("to = ['duty', 'nobody']").contains("nobody is no rule"));
        assert!(rung("after = '1m'").contains("to"));
        let second = "to = 'duty'\n[[reports.critical.rung]]\nto = 'duty'";
        assert!(rung(second).contains("not later"));
        let first = "to = 'duty'\n[[reports.critical.rung]]\nafter = '10m'\nto = 'duty'";
        assert_eq!(rung(first), "");
        assert!(said("[reports]").contains("keeps none"));
        assert!(said("[orders]\n[reports]").contains("nobody is told"));
        assert_eq!(said("[orders]\nexpected = false\n[reports]"), "", "a reading centre");
    }

    #[test]
    fn what_is_critical_is_said_where_reports_are_collected() {
        let reading = "[orders]\nexpected = false\n[reports]\n";
        let told = said(&format!("{reading}[reports.critical]\nflags = ['A']"));
        assert!(told.contains("reports.critical.flags") && told.contains("no effect"), "{told}");
        let collects = "[[reports.folder]]\nname = 'f'\npath = 'f'\n";
        assert_eq!(said(&format!("{reading}{collects}[reports.critical]\nflags = ['A']")), "");
        assert_eq!(said(&format!("{reading}[reports.critical]\nrepeat = '5m'")), "");
    }

    #[test]
    fn without_a_word_a_final_report_must_be_signed_by_anybody() {
        let (config, _) = read("[orders]\n[reports]").unwrap();
        let secretary = config.secretary().unwrap();
        assert_eq!(secretary.signing, []);
        let rules = SignerRules::default();
        assert!(rules.doubt(Status::Final, false, &[]).is_some());
        assert!(rules.doubt(Status::Preliminary, false, &[]).is_none());
        assert_eq!(secretary.promises.report[&Urgency::Stat], Duration::from_secs(3600));
        assert!(!secretary.promises.report.contains_key(&Urgency::Bulk));
        assert_eq!(config.reports.as_ref().unwrap().flagging, Flagging::default());
    }

    #[test]
    fn signers_codes_and_promises_are_read_and_checked() {
        let lines = "[orders]\nexpected = false\n[reports.critical]\nflags = []\n\
                     codes = ['A1^99X']\ntitles = ['至急']\n[reports.promises]\n\
                     routine = 'none'\nbulk = '30d'\n[[reports.signing]]\nhospitals = ['east']\n\
                     allow = [{ id = 'R1', issuer = 'H' }, { name = 'Yamada^Taro' }]\n\
                     [[reports.signing]]\nunsigned = true\n";
        let (config, warnings) = read(lines).unwrap();
        // Nothing is collected there.
        assert_eq!(warnings.matches("has no effect").count(), 3, "{warnings}");
        let reports = config.reports.as_ref().unwrap();
        assert_eq!(reports.flagging.codes, [("A1".to_owned(), "99X".to_owned())].into());
        assert!(reports.flagging.flags.is_empty());
        assert_eq!(reports.promises.report.get(&Urgency::Routine), None);
        assert_eq!(reports.signing[0].rules.allow[0].id, Identifier::of("R1", "H"));
        assert!(reports.signing[1].rules.unsigned);
        let with = |lines: &str| said(&format!("[orders]\nexpected = false\n{lines}"));
        assert!(with("[reports.critical]\ncodes = ['A1']").contains("is no code"));
        assert!(with("[[reports.signing]]\nallow = [{ issuer = 'H' }]").contains("number"));
        assert!(with("[[reports.signing]]\n[[reports.signing]]").contains("never asked"));
        let both = "[[reports.signing]]\nunsigned = true\nallow = [{ id = '1' }]";
        assert!(with(both).contains("contradicts allow"));
        assert!(with("[reports]\nalarm = '200d'").contains("90 days"));
    }
}
