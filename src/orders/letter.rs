//! A notice on its way: what is kept of it until every channel of its rule has taken it, and what
//! the channels say. Pure.
//!
//! The registrar enters a letter in the same change as the memory that it was told, so that a crash
//! neither forgets nor doubles it. From then on the notifier owns it. Its id never changes: a
//! receiver that sees it twice has the same notice twice.
//!
//! No letter names a patient: it has counts, sentences, an AE title, UIDs, the number of an order
//! that has no images yet, and a link that the configuration makes of these.

use std::time::Duration;

use minicbor::{Decode, Encode};
use serde_json::{Value, json};

use super::notice::{News, Notice};
use super::verdict::What;
use super::words::{Language, Sentence, Word};
use crate::cargo::{NodeName, Sha256};
use crate::clock::Timestamp;
use crate::custody::register::Entry;

/// What every letter's key begins with, in the book of orders.
pub const KEY: u8 = b'n';
/// Found by this until it is delivered or given up.
pub const OPEN: &[u8] = b"letters";
/// Found by this once it is given up, until it is forgotten.
pub const GIVEN_UP: &[u8] = b"letters given up";

/// How a notice travels.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Channel {
    /// HTTPS POST of a JSON document.
    #[n(0)]
    Webhook,
    /// SMTP.
    #[n(1)]
    Mail,
}

impl Channel {
    /// The word that documents and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        }
    }
}

/// What a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subject {
    /// The node that first took the study or order.
    #[n(0)]
    pub origin: NodeName,
    /// Study Instance UID; absent for an order without images.
    #[n(1)]
    pub study: Option<String>,
    /// The order's number, where one is known.
    #[n(2)]
    pub order: Option<String>,
}

/// A notice of one rule, until it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Letter {
    /// 32 hexadecimal digits, the same at every try.
    #[n(0)]
    pub id: String,
    /// Name of its rule.
    #[n(1)]
    pub rule: String,
    /// When it was made.
    #[n(2)]
    pub at: Timestamp,
    /// What it is about.
    #[n(3)]
    pub subject: Subject,
    /// What it says.
    #[n(4)]
    pub notice: Notice,
    /// Channels that have taken it.
    #[n(5)]
    pub done: Vec<Channel>,
    /// When it was given up.
    #[n(6)]
    pub given_up_at: Option<Timestamp>,
}

impl Letter {
    /// One that is made now.
    pub fn new(rule: &str, subject: Subject, notice: Notice, now: Timestamp) -> Self {
        let Subject { origin, study, order } = &subject;
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let parts = format!("{origin}\n{}\n{}\n{rule}\n{}", of(study), of(order), now.0);
        let parts = format!("{parts}\n{:?}", notice.news);
        Self::with_id(parts.as_bytes(), rule, subject, notice, now)
    }

    /// One of a report that the rule `rule` tells: what, why in words, and what it is about. Its id
    /// depends on rule and `seed` alone, so that one that is made twice, such as after a crash, is
    /// the same to its receiver; entered with the same `now` it is one entry. `what` is one of
    /// [`What::OF_REPORTS`]; `detail` holds no patient data.
    ///
    /// Enter [`entry`](Self::entry) into the book of orders, then ring the notifier.
    pub fn of_report(
        rule: &str,
        what: What,
        (subject, detail): (Subject, Sentence),
        seed: &[u8],
        now: Timestamp,
    ) -> Self {
        let seed = [b"report\n", rule.as_bytes(), b"\n", seed].concat();
        Self::with_id(&seed, rule, subject, Notice::of_report(what, detail, now), now)
    }

    fn with_id(seed: &[u8], rule: &str, subject: Subject, notice: Notice, now: Timestamp) -> Self {
        Self {
            id: Sha256::of(seed).to_string()[..32].to_owned(),
            rule: rule.to_owned(),
            at: now,
            subject,
            notice,
            done: Vec::new(),
            given_up_at: None,
        }
    }

    /// Where it stands in the book: the oldest first.
    pub fn key(&self) -> Vec<u8> {
        let at = u64::try_from(self.at.0).unwrap_or(0);
        [&[KEY][..], &at.to_be_bytes(), self.id.as_bytes()].concat()
    }

    /// As it is kept.
    pub fn entry(&self) -> Entry {
        let term = if self.given_up_at.is_some() { GIVEN_UP } else { OPEN };
        let body = minicbor::to_vec(self).expect("encoding into memory cannot fail");
        Entry { key: self.key(), body, terms: vec![term.to_vec().into()] }
    }

    /// How long after a failure it is tried again: the older, the longer, so that a restart makes
    /// no difference. From two seconds to ten minutes.
    pub fn pause(&self, now: Timestamp) -> Duration {
        Duration::from_secs((now.seconds_since(self.at) / 4).clamp(2, 600))
    }

    /// The JSON document of the webhook; docs/operating.md describes it.
    pub fn document(&self, node: &NodeName, link: Option<&str>) -> Value {
        let n = &self.notice;
        let order = self.subject.order.as_ref().filter(|_| self.subject.study.is_none());
        json!({
            "id": self.id,
            "kind": n.news,
            "node": node,
            "rule": self.rule,
            "at": self.at,
            "deadline": n.deadline,
            "station": n.to,
            "origin": self.subject.origin,
            "study": self.subject.study,
            "order": order,
            "link": link,
            "state": n.state,
            "about": n.about,
            "counts": n.counts,
            "subject": n.subject,
            "reasons": n.reasons,
            "actions": n.actions,
        })
    }

    /// Subject and text of a mail in these languages.
    pub fn mail(
        &self,
        node: &NodeName,
        link: Option<&str>,
        languages: &[Language],
    ) -> (String, String) {
        let subjects = languages.iter().map(|l| self.notice.subject.text(*l));
        let subject = format!("[hikyaku] {}", subjects.collect::<Vec<_>>().join(" / "));
        let texts = languages.iter().map(|language| self.text(node, link, *language));
        (subject, texts.collect::<Vec<_>>().join("\n--------\n\n"))
    }

    fn text(&self, node: &NodeName, link: Option<&str>, language: Language) -> String {
        let n = &self.notice;
        let mut out = format!("{}\n\n", n.subject.text(language));
        for reason in &n.reasons {
            out.push_str(&format!("{}\n", reason.text(language)));
        }
        for action in &n.actions {
            out.push_str(&format!("-> {}\n", action.text(language)));
        }
        out.push('\n');
        let mut tell = |word, value: &str| {
            if !value.is_empty() {
                out.push_str(&Sentence::new(word, &[&value]).text(language));
                out.push('\n');
            }
        };
        tell(Word::NoticeStation, &n.to);
        match &self.subject.study {
            Some(study) => tell(Word::NoticeStudy, study),
            None => tell(Word::NoticeOrder, self.subject.order.as_deref().unwrap_or_default()),
        }
        tell(Word::NoticeLink, link.unwrap_or_default());
        out.push_str(&Sentence::new(Word::NoticeFrom, &[node, &self.at]).text(language));
        out.push('\n');
        out
    }

    /// What it is about, for the log: words, and no identifier.
    pub fn about(&self) -> String {
        let word = |what: &What| match serde_json::to_value(what) {
            Ok(Value::String(word)) => word,
            _ => String::new(),
        };
        match self.notice.news {
            News::Settled => "settled".into(),
            News::Test => "test".into(),
            News::Opened | News::Told => {
                self.notice.about.iter().map(word).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// A link to a study or an order: text with `{study}` and `{order}`, which may both be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(String);

/// Why a text is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It begins with neither `https://` nor `http://`, or has blanks.
    #[error("it is no web address")]
    NoAddress,
    /// A placeholder that is not known, or a brace too many.
    #[error("only {{study}} and {{order}} are known")]
    Placeholder,
}

impl std::str::FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let web = text.starts_with("https://") || text.starts_with("http://");
        if !web || !text.is_ascii() || text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(LinkError::NoAddress);
        }
        let rest = text.replace("{study}", "").replace("{order}", "");
        match rest.contains(['{', '}']) {
            true => Err(LinkError::Placeholder),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl Link {
    /// The link to what a notice is about.
    pub fn to(&self, subject: &Subject) -> String {
        let of = |text: &Option<String>| encoded(text.as_deref().unwrap_or_default());
        self.0.replace("{study}", &of(&subject.study)).replace("{order}", &of(&subject.order))
    }
}

/// Percent-encoded but for the unreserved characters (RFC 3986 2.3): what a peer has chosen cannot
/// change where a link leads.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(study: Option<&str>, order: &str) -> Letter {
        let subject = Subject {
            origin: "hospital".parse().unwrap(),
            study: study.map(str::to_owned),
            order: Some(order.to_owned()),
        };
        Letter::new("ct", subject, Notice::test(Timestamp(5_000)), Timestamp(5_000))
    }

    #[test]
    fn a_link_leads_where_the_configuration_says_whatever_a_number_is_made_of() {
        let link: Link = "https://c.example/s/{study}?o={order}".parse().unwrap();
        let made = link.to(&letter(Some("1.2.3"), "A/../&x=日").subject);
        assert_eq!(made, "https://c.example/s/1.2.3?o=A%2F..%2F%26x%3D%E6%97%A5");
        for bad in
            ["https://c.example/{patient}", "https://c.example/{", "c.example", "https://a b"]
        {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_letter_keeps_its_id_and_two_never_share_one() {
        let (a, b) = (letter(Some("1.2.3"), "P1"), letter(None, "P1"));
        assert_eq!(a.id, letter(Some("1.2.3"), "P1").id);
        assert!(a.id != b.id && a.id.len() == 32);
        let bytes = minicbor::to_vec(&a).unwrap();
        assert_eq!(minicbor::decode::<Letter>(&bytes).unwrap(), a);
    }

    #[test]
    fn the_number_of_an_order_is_told_only_where_there_is_no_study() {
        let node: NodeName = "hospital".parse().unwrap();
        let (study, order) = (letter(Some("1.2.3"), "P1"), letter(None, "P1"));
        assert_eq!(study.document(&node, None)["order"], Value::Null);
        assert_eq!(order.document(&node, None)["order"], "P1");
        let (_, text) = study.mail(&node, None, &[Language::English, Language::Japanese]);
        assert!(text.contains("1.2.3") && !text.contains("P1"), "{text}");
        assert!(text.contains("検査：1.2.3"), "{text}");
    }

    #[test]
    fn a_letter_of_a_report_says_what_to_do_and_names_nobody_and_is_the_same_when_made_twice() {
        let subject = letter(Some("1.2.3"), "P1").subject;
        let detail = || Sentence::new(Word::CriticalSince, &[&Timestamp(5_000)]);
        let made = |rule: &str, what, seed: &[u8], at| {
            Letter::of_report(rule, what, (subject.clone(), detail()), seed, Timestamp(at))
        };
        let letter = made("duty", What::CriticalResult, b"a", 6_000);
        assert_eq!(letter.id, made("duty", What::CriticalResult, b"a", 9_000).id);
        assert_eq!(letter.entry(), made("duty", What::CriticalResult, b"a", 6_000).entry());
        assert!(letter.id != made("head", What::CriticalResult, b"a", 6_000).id);
        assert!(letter.id != made("duty", What::CriticalResult, b"b", 6_000).id);
        let node: NodeName = "hospital".parse().unwrap();
        let document = letter.document(&node, None);
        assert_eq!(document["kind"], "opened");
        assert_eq!(document["about"], json!(["critical-result"]));
        assert_eq!(document["actions"][0]["word"], "acknowledge-critical");
        for what in What::OF_REPORTS {
            let letter = made("duty", what, b"a", 6_000);
            let bytes = minicbor::to_vec(&letter).unwrap();
            assert_eq!(minicbor::decode::<Letter>(&bytes).unwrap(), letter);
            let word = letter.document(&node, None)["about"][0].as_str().unwrap().to_owned();
            assert_eq!(What::of_report(&word), Some(what));
            assert_eq!(What::named(&word), None, "no verdict finds it");
            let both = [Language::English, Language::Japanese];
            let (subject, text) = letter.mail(&node, None, &both);
            assert!(subject.starts_with("[hikyaku] ") && text.contains("-> "), "{text}");
            assert!(!text.contains('{'), "{text}");
        }
    }

    #[test]
    fn a_letter_is_tried_more_seldom_the_older_it_is() {
        let letter = letter(None, "P1");
        let pause = |seconds: i64| letter.pause(Timestamp(5_000 + seconds * 1000)).as_secs();
        assert_eq!((pause(0), pause(60), pause(86_400)), (2, 15, 600));
    }
}
