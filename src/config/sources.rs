//! `[[orders.source]]` and `[[orders.priors]]`: archives that are asked for what lacks, and which
//! earlier studies are wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::Config;
use super::orders::OrdersSection;
use super::read::{Document, URGENCIES, client_tls, pattern};
use super::reader::Section;
use super::rooms::{TlsError, client};
use super::sections::ClientTls;
use super::source::Source;
use super::value::*;
use crate::dicom::AeTitle;
use crate::inquiry::{self, Timeouts};
use crate::orders::priors::{Likeness, PriorRule};
use crate::orders::recall::{RecallRules, Retrieve};
use crate::orders::registrar::RecallSource;
use crate::orders::retriever::Archive;
use crate::routing::Pattern;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One `[[orders.source]]`: an archive that has what was sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSection {
    /// Its name, unique among sources.
    pub name: String,
    /// Where to connect.
    pub address: HostPort,
    /// Its AE title.
    pub ae_title: AeTitle,
    /// The AE title that we give as ours.
    pub calling_ae: AeTitle,
    /// Where a C-MOVE goes: our AE title as it knows us.
    pub move_to: AeTitle,
    /// TLS; `None`: plain.
    pub tls: Option<ClientTls>,
    /// AE titles of those whose studies it has; empty: of all.
    pub of: Vec<Pattern>,
    /// How it is asked for what lacks.
    pub rules: RecallRules,
    /// Whether it is asked what it has of a study that has become quiet.
    pub survey: bool,
    /// Inquiries at a time.
    pub inquiries: usize,
    /// `[orders.source.timeouts]`.
    pub timeouts: Timeouts,
}

impl SourceSection {
    /// As the registrar knows it.
    pub(super) fn recall(&self) -> RecallSource {
        RecallSource {
            name: self.name.clone(),
            ae_title: self.ae_title.to_string(),
            of: self.of.clone(),
            rules: self.rules.clone(),
            survey: self.survey,
            inquiries: self.inquiries,
        }
    }
}

pub(super) fn sections(
    s: &mut Section<'_, '_>,
    own: &AeTitle,
) -> (Vec<SourceSection>, Vec<PriorRule>) {
    let sources = s.tables("source", |s| source(s, own));
    let priors = s.tables("priors", priors);
    let all = |(_, section)| section;
    (sources.into_iter().map(all).collect(), priors.into_iter().map(|(_, rule)| rule).collect())
}

fn source(s: &mut Section<'_, '_>, own: &AeTitle) -> Option<SourceSection> {
    const WAYS: &[(&str, Retrieve)] = &[("move", Retrieve::Move), ("get", Retrieve::Get)];
    let name = s.need("name", text);
    let address = s.need("address", host_port);
    let title = s.need("ae_title", ae_title);
    let calling_ae = s.maybe("calling_ae", ae_title).unwrap_or_else(|| own.clone());
    let move_to = s.maybe("move_to", ae_title).unwrap_or_else(|| own.clone());
    let tls = s.maybe_table("tls", client_tls);
    let of = s.one_or_list("for", |v| pattern(v, Pattern::new)).unwrap_or_default();
    let default = RecallRules::default();
    let rules = RecallRules {
        by: s.one_or_list("by", word(WAYS)).unwrap_or(default.by),
        rounds_max: s.or("rounds", "12", count(1..=1000)),
        patience: s.or("patience", "\"1d\"", duration),
        pause: s.or("pause", "\"30s\"", duration),
        pause_max: s.or("pause_max", "\"1h\"", duration),
        batch: s.or("batch", "100", count(1..=500)),
        eager: false,
    };
    let survey = s.or("survey", "true", boolean);
    let inquiries = s.or("inquiries", "2", count(1..=16)) as usize;
    let timeouts = s.table("timeouts", |s| Timeouts {
        connect: s.or("connect", "\"10s\"", duration),
        associate: s.or("associate", "\"30s\"", duration),
        write: s.or("write", "\"60s\"", duration),
        response: s.or("response", "\"2m\"", duration),
        operation: s.or("operation", "\"6h\"", duration),
    });
    Some(SourceSection {
        name: name?,
        address: address?,
        ae_title: title?,
        calling_ae,
        move_to,
        tls,
        of,
        rules,
        survey,
        inquiries,
        timeouts,
    })
}

/// One word for any or the same, or several to choose from.
fn likeness(s: &mut Section<'_, '_>, key: &'static str) -> Option<Likeness> {
    let words = s.one_or_list(key, |v: &DeValue<'_>| text(v))?;
    Some(match words.as_slice() {
        [one] if one == "any" => Likeness::Any,
        [one] if one == "same" => Likeness::Same,
        _ => Likeness::OneOf(words),
    })
}

fn priors(s: &mut Section<'_, '_>) -> Option<PriorRule> {
    let name = s.need("name", text);
    let source = s.need("source", text);
    let (when_modality, when_procedure) = s.table("when", |s| {
        let mut patterns = |key| s.one_or_list(key, |v| pattern(v, Pattern::new));
        (patterns("modality").unwrap_or_default(), patterns("procedure").unwrap_or_default())
    });
    let (modality, body_part) = (likeness(s, "modality"), likeness(s, "body_part"));
    let age_max = s.or("age_max", "\"1095d\"", duration);
    let studies_max = s.or("max_studies", "2", count(1..=20)) as usize;
    let images_max = s.or("max_images", "5000", count(1..=100_000));
    let urgency = s.or("urgency", "\"bulk\"", word(URGENCIES));
    let reports = s.or("reports", "true", boolean);
    let wait = s.or("wait", "\"1h\"", duration);
    Some(PriorRule {
        name: name?,
        source: source?,
        when_modality,
        when_procedure,
        modality: modality.unwrap_or(Likeness::Same),
        body_part: body_part.unwrap_or(Likeness::Any),
        age_max,
        studies_max,
        images_max,
        urgency,
        reports,
        wait,
    })
}

/// Reports what does not fit together.
pub(super) fn check(orders: &OrdersSection, document: &Document, source: &mut Source<'_>) {
    let mut names: Vec<&str> = orders.sources.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = format!("names {} twice", twice[0]);
        source.problem("orders.source", what, "give each source a name of its own");
    }
    for section in &orders.sources {
        check_source(section, document, source);
    }
    for rule in &orders.priors {
        if !names.contains(&rule.source.as_str()) {
            let what = format!("{} asks {}, which is no source", rule.name, rule.source);
            source.problem("orders.priors", what, "name one of [[orders.source]]");
        }
        if rule.wait > 7 * DAY {
            let what = format!("{} waits too long for the new study", rule.name);
            source.problem("orders.priors", what, "wait: 7 days at most");
        }
    }
}

fn check_source(section: &SourceSection, document: &Document, source: &mut Source<'_>) {
    let name = &section.name;
    let rules = &section.rules;
    if rules.pause > rules.pause_max || rules.pause_max > DAY || rules.patience > 30 * DAY {
        let what = format!("{name} is asked too seldom");
        let advice = "pause is at most pause_max, pause_max at most 1 day, patience 30";
        source.problem("orders.source", what, advice);
    }
    let Some(dicom) = &document.dicom else {
        let what = format!("{name} can send nothing here");
        source.problem("orders.source", what, "add a [dicom] section");
        return;
    };
    if !rules.by.contains(&Retrieve::Move) {
        return;
    }
    if !dicom.ae_titles.contains(&section.move_to) {
        let what =
            format!("{name} would send to {}, which this node does not answer", section.move_to);
        source.problem("orders.source", what, "name one of dicom.ae_titles as move_to");
    }
    let lets_in = |title: &Option<AeTitle>| title.as_ref().is_none_or(|t| *t == section.ae_title);
    if !dicom.allow.iter().any(|allow| lets_in(&allow.ae_title)) {
        let what = format!("{name} is asked to send, but {} may not", section.ae_title);
        let advice = "add its AE title and address to dicom.allow, or write by = [\"get\"]";
        source.warning("orders.source", what, advice);
    }
}

impl Config {
    /// The archives that are asked, by name; reads the files of TLS.
    ///
    /// # Errors
    ///
    /// A certificate or key cannot be used.
    pub fn archives(&self) -> Result<BTreeMap<String, Archive>, TlsError> {
        let sections = self.orders.iter().flat_map(|orders| &orders.sources);
        let archive = |section: &SourceSection| {
            let host = &section.address.host;
            let tls = section.tls.as_ref().map(|tls| client(tls, host)).transpose()?;
            let target = inquiry::Target {
                host: host.clone(),
                port: section.address.port,
                calling: section.calling_ae.clone(),
                called: section.ae_title.clone(),
                tls,
                timeouts: section.timeouts,
            };
            Ok((section.name.clone(), Archive { target, move_to: section.move_to.clone() }))
        };
        sections.map(archive).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(more: &str) -> super::super::Read {
        let text = format!(
            "[node]\nname = 'h'\n[dicom]\nlisten = '127.0.0.1:1'\nae_titles = ['HIKYAKU']\n\
             allow = [{{ ae_title = 'CT1' }}]\n[orders]\n{more}"
        );
        Config::parse(&text, Path::new("/etc/h.toml"))
    }

    const PACS: &str =
        "[[orders.source]]\nname = 'pacs'\naddress = 'pacs:104'\nae_title = 'PACS'\n";

    #[test]
    fn a_source_that_may_not_send_here_is_told_before_the_first_move() {
        let (config, warnings) = parse(PACS).unwrap();
        let told = |warnings: &[super::super::Warning]| {
            warnings.iter().filter(|w| w.to_string().contains("PACS may not")).count()
        };
        assert_eq!(told(&warnings), 1, "{warnings:?}");
        let archive = &config.archives().unwrap()["pacs"];
        assert_eq!(
            (archive.target.calling.as_str(), archive.move_to.as_str()),
            ("HIKYAKU", "HIKYAKU")
        );
        assert_eq!(config.registrar().unwrap().sources[0].rules, RecallRules::default());
        assert_eq!(told(&parse(&format!("{PACS}by = 'get'\n")).unwrap().1), 0);
    }

    #[test]
    fn what_does_not_fit_together_is_told_at_once() {
        for (more, said) in [
            (format!("{PACS}{PACS}"), "names pacs twice"),
            (format!("{PACS}move_to = 'OTHER'\n"), "does not answer"),
            (format!("{PACS}pause = '2h'\n"), "too seldom"),
            ("[[orders.priors]]\nname = 'p'\nsource = 'x'\n".into(), "is no source"),
        ] {
            let problems = parse(&more).unwrap_err();
            assert!(problems[0].to_string().contains(said), "{problems:?}");
        }
    }

    #[test]
    fn a_rule_for_priors_says_what_must_be_alike() {
        let rule = "[[orders.priors]]\nname = 'ct'\nsource = 'pacs'\nwhen = { modality = 'CT' }\n\
                    modality = ['CT', 'MR']\nbody_part = 'same'\nage_max = '400d'\n";
        let (config, _) = parse(&format!("{PACS}{rule}")).unwrap();
        let rule = &config.registrar().unwrap().priors[0];
        assert_eq!(rule.modality, Likeness::OneOf(vec!["CT".into(), "MR".into()]));
        assert_eq!((rule.body_part.clone(), rule.age_max), (Likeness::Same, 400 * DAY));
    }
}
