//! A scheduled step of an order as a worklist shows it. Pure.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use crate::clock::Timestamp;
use crate::orders::order::{Order, OrderState, Procedure};
use crate::orders::stand_in;

/// How the book of orders writes a day without a time.
const DAYS_END: Time = jiff::civil::time(23, 59, 59, 0);

/// One scheduled procedure step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its order.
    pub order: &'a Order,
    /// The step; study, requested procedure and step always have a number.
    pub step: Procedure,
    /// When, local to the worklist.
    pub at: DateTime,
    /// Whether only the day is known; the time is then 0 o'clock.
    pub whole_day: bool,
}

/// Whether an order is on the worklist.
pub fn is_shown(order: &Order) -> bool {
    matches!(order.state, OrderState::Requested | OrderState::InProgress)
}

/// The steps of an order, at least one. An order without a time is scheduled when it was `entered`.
pub fn entries<'a>(order: &'a Order, entered: Timestamp, zone: &TimeZone) -> Vec<Entry<'a>> {
    let c = &order.content;
    let nameless = [Procedure::default()];
    let steps = if c.procedures.is_empty() { &nameless[..] } else { &c.procedures };
    let entry = |(n, step): (usize, &Procedure)| {
        let scheduled = step.scheduled.or(c.scheduled).unwrap_or(entered);
        let at = jiff::Timestamp::from_millisecond(scheduled.0).unwrap_or_default();
        let at = at.to_zoned(zone.clone()).datetime();
        let whole_day = at.time() == DAYS_END;
        let mut step = step.clone();
        if !c.studies.contains(&step.study) {
            let of_order = c.studies.first().cloned();
            step.study = of_order.unwrap_or_else(|| stand_in::study_uid(&order.key));
        }
        let or = |own: &mut String, other: &dyn Fn() -> String| {
            if own.is_empty() {
                *own = other();
            }
        };
        or(&mut step.requested, &|| stand_in::requested_id(&order.key, n));
        or(&mut step.step, &|| stand_in::step_id(&order.key, n));
        or(&mut step.modality, &|| c.modality.clone());
        or(&mut step.modality, &|| "OT".into());
        let at = if whole_day { at.date().to_datetime(Time::midnight()) } else { at };
        Entry { order, step, at, whole_day }
    };
    steps.iter().enumerate().map(entry).collect()
}

impl Entry<'_> {
    /// The patient's name, its groups separated by `=`: alphabetic, ideographic, phonetic.
    pub fn patient_name(&self) -> String {
        person_name(&self.order.content.patient.names)
    }

    /// Patient ID and who gives it: where nobody says, the node that took the order, so that equal
    /// numbers of two sites stay apart.
    pub fn patient_id(&self) -> (&str, &str) {
        let Some(id) = self.order.content.patient.ids.iter().find(|id| id.is_named()) else {
            return ("", "");
        };
        let namespace = id.authority.namespace.as_str();
        let issuer = if namespace.is_empty() { self.order.key.origin.as_str() } else { namespace };
        (&id.id, issuer)
    }

    /// Accession number; empty where there is none.
    pub fn accession(&self) -> &str {
        self.order.content.accession.as_ref().map_or("", |id| &id.id)
    }

    /// What is requested, in words; never empty.
    pub fn requested(&self) -> &str {
        let code = &self.step.code;
        let words = [&code.meaning, &code.value, &self.step.description, &self.step.modality];
        words.into_iter().find(|word| !word.is_empty()).map_or("OT", String::as_str)
    }

    /// What the step is, in words; never empty.
    pub fn described(&self) -> &str {
        let protocols = self.step.protocols.iter().map(|code| &code.meaning);
        let words = std::iter::once(&self.step.description).chain(protocols);
        let mut words = words.filter(|word| !word.is_empty());
        words.next().map_or_else(|| self.requested(), String::as_str)
    }
}

/// The groups of a name among its representations, each in the place that its script has.
fn person_name(names: &[String]) -> String {
    let mut groups = [""; 3];
    for name in names.iter().flat_map(|name| name.split('=')).filter(|n| !n.is_empty()) {
        let kanji = |c: char| {
            ('\u{3400}'..='\u{9fff}').contains(&c) || ('\u{f900}'..'\u{fb00}').contains(&c)
        };
        let kana = |c: char| ('\u{3040}'..='\u{30ff}').contains(&c);
        // Half-width kana stand in the place of letters: ISO_IR 13 has one byte for each.
        let place = match () {
            () if name.chars().any(kanji) => 1,
            () if name.chars().any(kana) => 2,
            () => 0,
        };
        let free = groups[place].is_empty().then_some(place);
        // A second name in kana is that of a person who writes the first so.
        let free = free.or((place == 2 && groups[1].is_empty()).then_some(1));
        if let Some(place) = free {
            groups[place] = name;
        }
    }
    groups.join("=").trim_end_matches('=').to_owned()
}
