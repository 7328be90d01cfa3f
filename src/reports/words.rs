//! Every sentence about reports that people read, in English and Japanese, once: why a document
//! waits, what is owed, where a critical result stands, and what to do next.
//!
//! A sentence has places `{0}` for numbers and times. No place ever takes the name or number of a
//! patient, or text of a report: these sentences stand in listings and in answers to programs.

use serde::{Serialize, Serializer};

use super::critical::State;
use super::matching::Outcome;
use super::secretary::{CriticalRow, HeldRow, LoopRow, Why};
use super::signers::Doubt;
use super::turnaround::Owed;
use crate::orders::identifier::Agreement;
use crate::orders::words::{Language, serialize_sentence, words};

words! {
    // Why a document waits.
    NoMatch "no-match"
        "No study and no order that is known here has anything in common with it."
        "該当する検査もオーダーも見つかりません。"
    SeveralMatch "several-match"
        "{0} studies or orders could be meant; none was chosen."
        "該当しうる検査またはオーダーが {0} 件あり、特定できません。"
    PatientDiffers "patient-differs"
        "It names another patient than the study does."
        "レポートと検査の患者が一致しません。"
    PatientUnsure "patient-unsure"
        "It cannot be told whether its patient is that of the study."
        "レポートと検査の患者が同一か確認できません。"
    NumberDiffers "number-differs"
        "Its accession number is not that of the study."
        "レポートと検査の受付番号（Accession Number）が一致しません。"
    Unsigned "unsigned"
        "Nobody has signed it."
        "署名がありません。"
    SignerUnknown "signer-unknown"
        "Who has signed it is not on the list of those who may."
        "署名者が、署名を認められた人の一覧にありません。"
    TooManyVersions "too-many-versions"
        "There are more versions of this report than are kept."
        "このレポートの版の数が上限を超えました。"
    Garbled "garbled"
        "Characters of its text could not be read: its message names another character set than it is in (MSH-18)."
        "本文に読み取れない文字があります。メッセージの文字集合の指定（MSH-18）が実際と異なります。"
    Unreadable "unreadable"
        "Its bytes cannot be read any more."
        "データを読み取れなくなりました。"
    StudyUnknown "study-unknown"
        "The reading node says where it belongs, and nothing of that is known here."
        "読影側が示した検査もオーダーも、このノードにはありません。"
    NotSent "not-sent"
        "It comes from a node to which nothing of this study or order was sent."
        "この検査もオーダーも、送信元の読影側には送られていません。"
    Waits "waits"
        "It waits for a person."
        "担当者の判断を待っています。"
    // What is owed.
    ReceiptDue "receipt-due"
        "The reading node should say by {0} that it has the study whole."
        "読影側からの受領通知の期限は {0} です。"
    ReportDue "report-due"
        "A final report is due at {0}."
        "確定報告の期限は {0} です。"
    AcknowledgementDue "acknowledgement-due"
        "The hospital's systems should say by {0} that they have the report."
        "病院側システムからの受領確認の期限は {0} です。"
    ReceiptOverdue "receipt-overdue"
        "The reading node should have said by {0} that it has the study whole, and has not."
        "読影側からの受領通知が、期限 {0} を過ぎても届いていません。"
    ReportOverdue "report-overdue"
        "A final report was due at {0} and has not come."
        "確定報告が、期限 {0} を過ぎても届いていません。"
    AcknowledgementOverdue "acknowledgement-overdue"
        "The hospital's systems should have said by {0} that they have the report, and have not."
        "病院側システムからの受領確認が、期限 {0} を過ぎても届いていません。"
    FollowUpDue "follow-up-due"
        "It is to be asked from {0} on what became of the patient."
        "経過の確認は {0} からです。"
    FollowUpOverdue "follow-up-overdue"
        "It is time since {0} to ask what became of the patient."
        "{0} に経過の確認時期を迎えました。"
    NothingOwed "nothing-owed"
        "Nothing is promised and not kept."
        "期限のある未完了の項目はありません。"
    // Where a critical result stands.
    CriticalOpen "critical-open"
        "Critical since {0}, and nobody has said that he or she knows."
        "{0} に重要所見とされましたが、確認者がまだいません。"
    CriticalKnown "critical-known"
        "Critical since {0}; a person knows, and has not said yet what was done."
        "{0} に重要所見とされました。確認済みですが、対応の記録がありません。"
    CriticalClosed "critical-closed"
        "Critical since {0}; it was dealt with."
        "{0} に重要所見とされ、対応済みです。"
    // What to do.
    Nothing "nothing"
        "Nothing to do now."
        "対応は不要です。"
    MatchIt "match-it"
        "Say where it belongs: hikyaku report match DOCUMENT STUDY-OR-ORDER; or hikyaku report discard DOCUMENT --reason TEXT."
        "hikyaku report match DOCUMENT STUDY-OR-ORDER で検査またはオーダーを指定するか、hikyaku report discard DOCUMENT --reason TEXT で破棄してください。"
    ComparePatients "compare-patients"
        "Compare the patients of report and study; then match it to the right one, or discard it: hikyaku report match, hikyaku report discard."
        "レポートと検査の患者を照合し、hikyaku report match で正しい検査を指定するか、hikyaku report discard で破棄してください。"
    CompareNumbers "compare-numbers"
        "Compare the accession numbers; then match it to the right study, or discard it: hikyaku report match, hikyaku report discard."
        "受付番号を照合し、hikyaku report match で正しい検査を指定するか、hikyaku report discard で破棄してください。"
    ReleaseIt "release-it"
        "Find out who answers for it; then hikyaku report release DOCUMENT, or hikyaku report discard DOCUMENT --reason TEXT."
        "責任を負う署名者を確認し、hikyaku report release DOCUMENT で送るか、hikyaku report discard DOCUMENT --reason TEXT で破棄してください。"
    AskSender "ask-sender"
        "Have its sender send it again; then hikyaku report discard DOCUMENT --reason TEXT."
        "送信元に再送を依頼し、この文書は hikyaku report discard DOCUMENT --reason TEXT で破棄してください。"
    FindStudy "find-study"
        "See why study and order are not here: once they are, it goes on by itself. Or hikyaku report discard DOCUMENT --reason TEXT."
        "検査とオーダーがない理由を確認してください。届けば自動で続行します。不要なら hikyaku report discard DOCUMENT --reason TEXT で破棄してください。"
    FindRoute "find-route"
        "Find out how that node came by it; then hikyaku report release DOCUMENT, or hikyaku report discard DOCUMENT --reason TEXT."
        "送信元がこの検査を得た経緯を確認し、hikyaku report release DOCUMENT で受け入れるか、hikyaku report discard DOCUMENT --reason TEXT で破棄してください。"
    SeeTunnel "see-tunnel"
        "See whether all images have arrived (hikyaku study UID, hikyaku status); when nobody waits any more: hikyaku report dismiss STUDY."
        "画像がすべて届いたか確認してください（hikyaku study UID、hikyaku status）。不要になった場合は hikyaku report dismiss STUDY を実行してください。"
    AskReader "ask-reader"
        "Ask the reading centre: hikyaku note STUDY TEXT; when nobody waits any more: hikyaku report dismiss STUDY."
        "hikyaku note STUDY TEXT で読影側に問い合わせてください。不要になった場合は hikyaku report dismiss STUDY を実行してください。"
    AskFollowUp "ask-follow-up"
        "Ask the other side: hikyaku note STUDY TEXT; then hikyaku report dismiss STUDY."
        "hikyaku note STUDY TEXT で相手側に確認し、済んだら hikyaku report dismiss STUDY を実行してください。"
    SeeSystems "see-systems"
        "See which system has not said yes: hikyaku report show STUDY, hikyaku status."
        "受領確認のないシステムを調べてください：hikyaku report show STUDY、hikyaku status。"
    AcknowledgeIt "acknowledge-it"
        "Read the report and tell whoever treats the patient; then, at the hospital: hikyaku critical ack ID."
        "レポートを読み、主治医に伝えた後、病院側で hikyaku critical ack ID を実行してください。"
    CloseIt "close-it"
        "Once it is dealt with, at the hospital: hikyaku critical close ID --done TEXT."
        "対応が済んだら、病院側で hikyaku critical close ID --done TEXT を実行してください。"
}

/// A sentence with what stands in its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Which.
    pub word: Word,
    /// For `{0}`; empty where there is no place.
    pub value: String,
}

impl Sentence {
    /// A sentence with `value` in its place.
    pub fn new(word: Word, value: impl std::fmt::Display) -> Self {
        Self { word, value: value.to_string() }
    }

    /// As people read it.
    pub fn text(&self, language: Language) -> String {
        self.word.text(language).replace("{0}", &self.value)
    }
}

impl From<Word> for Sentence {
    fn from(word: Word) -> Self {
        Self { word, value: String::new() }
    }
}

impl Serialize for Sentence {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        serialize_sentence(s, self.word.as_str(), |language| self.text(language))
    }
}

/// A row of a listing, with why it stands there and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told<T> {
    /// The row.
    #[serde(flatten)]
    pub row: T,
    /// Why it is so.
    pub reason: Sentence,
    /// What to do next.
    pub action: Sentence,
}

impl From<HeldRow> for Told<HeldRow> {
    fn from(row: HeldRow) -> Self {
        let (reason, action) = of_why(&row.why);
        Self { row, reason, action: action.into() }
    }
}

fn of_why(why: &Why) -> (Sentence, Word) {
    let (word, action) = match why {
        Why::Match(Outcome::None) => (Word::NoMatch, Word::MatchIt),
        Why::Match(Outcome::Several { targets, .. }) => {
            return (Sentence::new(Word::SeveralMatch, targets.len()), Word::MatchIt);
        }
        Why::Match(Outcome::PatientDiffers { agreement: Agreement::Different, .. }) => {
            (Word::PatientDiffers, Word::ComparePatients)
        }
        Why::Match(Outcome::PatientDiffers { .. }) => (Word::PatientUnsure, Word::ComparePatients),
        Why::Match(Outcome::NumberDiffers { .. }) => (Word::NumberDiffers, Word::CompareNumbers),
        // What is found does not wait for that.
        Why::Match(Outcome::Found { .. }) => (Word::Waits, Word::MatchIt),
        Why::Signer(Doubt::Unsigned) => (Word::Unsigned, Word::ReleaseIt),
        Why::Signer(Doubt::Unknown) => (Word::SignerUnknown, Word::ReleaseIt),
        Why::Full => (Word::TooManyVersions, Word::AskSender),
        Why::Garbled => (Word::Garbled, Word::ReleaseIt),
        Why::Unreadable => (Word::Unreadable, Word::AskSender),
        Why::Unknown(_) => (Word::StudyUnknown, Word::FindStudy),
        Why::NotSent(_) => (Word::NotSent, Word::FindRoute),
    };
    (word.into(), action)
}

impl From<LoopRow> for Told<LoopRow> {
    fn from(row: LoopRow) -> Self {
        let word = |owed: Owed, late: bool| match (owed, late) {
            (Owed::Receipt, false) => (Word::ReceiptDue, Word::Nothing),
            (Owed::Report, false) => (Word::ReportDue, Word::Nothing),
            (Owed::Acknowledgement, false) => (Word::AcknowledgementDue, Word::Nothing),
            (Owed::FollowUp, false) => (Word::FollowUpDue, Word::Nothing),
            (Owed::FollowUp, true) => (Word::FollowUpOverdue, Word::AskFollowUp),
            (Owed::Receipt, true) => (Word::ReceiptOverdue, Word::SeeTunnel),
            (Owed::Report, true) => (Word::ReportOverdue, Word::AskReader),
            (Owed::Acknowledgement, true) => (Word::AcknowledgementOverdue, Word::SeeSystems),
        };
        let late = row.overdue.first().map(|(due, owed)| (due, word(*owed, true)));
        let due = || row.owed.first().map(|(due, owed)| (due, word(*owed, false)));
        let (reason, action) = match late.or_else(due) {
            Some((due, (reason, action))) => (Sentence::new(reason, due), action),
            None => (Word::NothingOwed.into(), Word::Nothing),
        };
        Self { row, reason, action: action.into() }
    }
}

impl From<CriticalRow> for Told<CriticalRow> {
    fn from(row: CriticalRow) -> Self {
        let (reason, action) = match row.state {
            State::Open => (Word::CriticalOpen, Word::AcknowledgeIt),
            State::Acknowledged => (Word::CriticalKnown, Word::CloseIt),
            State::Closed => (Word::CriticalClosed, Word::Nothing),
        };
        let reason = Sentence::new(reason, row.since);
        Self { row, reason, action: action.into() }
    }
}

/// All rows with their sentences.
pub fn told<T>(rows: Vec<T>) -> Vec<Told<T>>
where
    Told<T>: From<T>,
{
    rows.into_iter().map(Told::from).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cargo::Urgency;
    use crate::clock::Timestamp;
    use crate::reports::matching::{By, Target};
    use crate::reports::report::Status;

    fn target() -> Target {
        Target { origin: "st-elsewhere".parse().unwrap(), study: "1.2.3".into(), order: None }
    }

    fn held(why: Why) -> Told<HeldRow> {
        Told::from(HeldRow {
            document: "d".into(),
            arrived_at: Timestamp(0),
            source: "RIS".into(),
            status: Status::Final,
            why,
            words: String::new(),
            is_critical: false,
        })
    }

    #[test]
    fn both_languages_say_every_sentence_with_the_same_places() {
        let mut words = BTreeSet::new();
        for word in Word::ALL {
            let (en, ja) = (word.text(Language::English), word.text(Language::Japanese));
            assert_eq!(en.contains("{0}"), ja.contains("{0}"), "{en}");
            assert!(!ja.is_ascii() && en.is_ascii(), "{en}");
            assert!(words.insert(word.as_str()), "{word:?} twice");
        }
    }

    #[test]
    fn every_reason_for_which_a_document_waits_is_told_with_what_to_do() {
        let (by, agreement) = (By::Study, Agreement::Unsure);
        let several = Outcome::Several { by, targets: vec![target(), target()] };
        let unsure = Outcome::PatientDiffers { by, target: target(), agreement };
        let other =
            Outcome::PatientDiffers { by, target: target(), agreement: Agreement::Different };
        let number = Outcome::NumberDiffers { by, target: target() };
        let all = [
            (Why::Match(Outcome::None), Word::NoMatch, Word::MatchIt),
            (Why::Match(several), Word::SeveralMatch, Word::MatchIt),
            (Why::Match(unsure), Word::PatientUnsure, Word::ComparePatients),
            (Why::Match(other), Word::PatientDiffers, Word::ComparePatients),
            (Why::Match(number), Word::NumberDiffers, Word::CompareNumbers),
            (Why::Signer(Doubt::Unsigned), Word::Unsigned, Word::ReleaseIt),
            (Why::Signer(Doubt::Unknown), Word::SignerUnknown, Word::ReleaseIt),
            (Why::Full, Word::TooManyVersions, Word::AskSender),
            (Why::Unreadable, Word::Unreadable, Word::AskSender),
            (Why::Unknown(vec![target()]), Word::StudyUnknown, Word::FindStudy),
            (Why::NotSent(vec![target()]), Word::NotSent, Word::FindRoute),
        ];
        for (why, reason, action) in all {
            let told = held(why.clone());
            assert_eq!((told.reason.word, told.action.word), (reason, action), "{why:?}");
        }
    }

    #[test]
    fn a_held_document_is_one_flat_object_with_its_reason_in_both_languages() {
        let why = Why::Match(Outcome::Several { by: By::Accession, targets: vec![target()] });
        let json = serde_json::to_value(held(why)).unwrap();
        assert_eq!((&json["document"], &json["status"]), (&"d".into(), &"final".into()));
        assert_eq!(json["reason"]["word"], "several-match");
        assert!(json["reason"]["en"].as_str().is_some_and(|en| en.starts_with("1 studies")));
        assert!(json["action"]["ja"].as_str().is_some_and(|ja| ja.contains("hikyaku")));
    }

    #[test]
    fn what_is_overdue_is_told_before_what_is_only_due() {
        let row = |overdue: &[(Timestamp, Owed)]| LoopRow {
            hospital: "st-elsewhere".parse().unwrap(),
            study: "1.2.3".into(),
            order: String::new(),
            urgency: Urgency::Stat,
            moments: Vec::new(),
            owed: vec![(Timestamp(5), Owed::Receipt), (Timestamp(9), Owed::Report)],
            overdue: overdue.to_vec(),
        };
        let told = Told::from(row(&[]));
        assert_eq!(told.reason, Sentence::new(Word::ReceiptDue, Timestamp(5)));
        let told = Told::from(row(&[(Timestamp(9), Owed::Report)]));
        assert_eq!(told.reason, Sentence::new(Word::ReportOverdue, Timestamp(9)));
        assert_eq!(told.action.word, Word::AskReader);
        let told = Told::from(LoopRow { owed: vec![], ..row(&[]) });
        assert_eq!((told.reason.word, told.action.word), (Word::NothingOwed, Word::Nothing));
    }
}
