//! Every sentence that orders and gaps are told with, in English and Japanese, once.
//!
//! A sentence has places `{0}`, `{1}` for numbers, times and UIDs. No place ever takes the name or
//! number of a patient, or free text of a message: these sentences go into notices and listings.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// A language of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Japanese.
    Japanese,
}

/// A table of sentences becomes `Word`: of each its number where it is written down by it, its
/// name, its word for programs, and the sentence in both languages.
macro_rules! words {
    ($($($n:literal)? $name:ident $word:literal $en:literal $ja:literal)*) => {
        /// Which sentence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Word {
            $(#[doc = $en] $name $(= $n)?,)*
        }

        impl Word {
            /// All sentences.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word for it in listings and JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The sentence with its places.
            pub fn text(self, language: Language) -> &'static str {
                match (self, language) {
                    $(
                        (Self::$name, Language::English) => $en,
                        (Self::$name, Language::Japanese) => $ja,
                    )*
                }
            }
        }
    };
}
pub(crate) use words;

words! {
    // What is so.
    0 DueAt "due-at"
        "No image yet; the examination is due at {0}."
        "画像はまだ届いていません。検査予定時刻は {0} です。"
    1 DueSometime "due-sometime"
        "No image yet; the order names no time."
        "画像はまだ届いていません。オーダーに予定時刻の記載がありません。"
    2 OverdueSince "overdue-since"
        "The examination was due at {0} and no image has come."
        "検査予定時刻 {0} を過ぎましたが、画像が届いていません。"
    3 ArrivingOf "arriving-of"
        "{0} of {1} instances have come."
        "{1} 件中 {0} 件が到着しました。"
    4 ArrivingUnknown "arriving-unknown"
        "{0} instances have come; how many there will be is not known yet."
        "{0} 件が到着しました。総数はまだ分かりません。"
    5 StepInProgress "step-in-progress"
        "{0} instances have come; the procedure step is in progress."
        "{0} 件が到着しました。検査は実施中です。"
    6 ShortOf "short-of"
        "{0} of {1} instances that the evidence names are missing."
        "報告された {1} 件のうち {0} 件が未到着です。"
    7 ShortCount "short-count"
        "The source counts {0} more instances than are named or in custody."
        "送信元の件数は、把握している件数より {0} 件多くなっています。"
    8 ShortNumbers "short-numbers"
        "The image headers show {0} gaps; nothing stronger says how many images there should be."
        "画像の番号などに {0} 箇所の欠けがあります。総数を示す他の情報はありません。"
    9 PresumedQuiet "presumed-quiet"
        "Nothing has come for {0} s, and nothing says how many there should be."
        "{0} 秒間新たな画像がありません。総数を示す情報もありません。"
    10 PresumedBeyond "presumed-beyond"
        "All named instances came, but {0} images are named by nobody."
        "報告された画像はすべて届きましたが、報告にない画像が {0} 件あります。"
    11 PresumedStep "presumed-step"
        "All named instances came, but the procedure step was never ended."
        "報告された画像はすべて届きましたが、検査の終了が通知されていません。"
    12 CompleteAll "complete-all"
        "All {0} instances that the evidence names are in custody."
        "報告された {0} 件はすべて届いています。"
    13 OrderCancelled "order-cancelled"
        "The order was cancelled."
        "オーダーは取り消されました。"
    14 OrderDiscontinued "order-discontinued"
        "The order was discontinued."
        "オーダーは中止されました。"
    15 StepsDiscontinued "steps-discontinued"
        "Every procedure step was discontinued and names no image."
        "検査はすべて中止され、画像の報告はありません。"
    16 WrongWorklist "wrong-worklist"
        "The modality discontinued the step: incorrect worklist entry selected."
        "装置側でワークリストの選択誤りとして検査が中止されました。"
    17 PatientDiffers "patient-differs"
        "The images and the order name different patients."
        "画像とオーダーの患者が一致しません。"
    18 AccessionDiffers "accession-differs"
        "The images and the order have different accession numbers."
        "画像とオーダーの受付番号（Accession Number）が一致しません。"
    19 NoOrder "no-order"
        "There is no order for these images."
        "これらの画像に対応するオーダーがありません。"
    20 OrderAmbiguous "order-ambiguous"
        "{0} orders could be meant; none was chosen."
        "該当しうるオーダーが {0} 件あり、特定できません。"
    21 CancelledWithImages "cancelled-with-images"
        "The order is cancelled or discontinued, but {0} instances came."
        "オーダーは取消または中止されていますが、{0} 件の画像が届いています。"
    22 ReopenedSince "reopened-since"
        "The study was taken for complete at {0} and is not."
        "{0} に完了とされましたが、その後不足が判明しました。"
    23 CameAgain "came-again"
        "{0} withdrawn instances were sent again; they stay withdrawn."
        "取り下げ済みの画像 {0} 件が再送されました。取り下げたままです。"
    24 HeadersWarn "headers-warn"
        "The image headers show {0} gaps, although what the evidence names is judged without them."
        "判定とは別に、画像の番号などに {0} 箇所の欠けがあります。"
    25 OriginJudges "origin-judges"
        "The sending node says: not complete."
        "送信元ノードではまだ完了していません。"
    26 OnTheWay "on-the-way"
        "{0} of {1} instances have not reached this node yet."
        "{1} 件中 {0} 件がこのノードに届いていません。"
    33 WithdrawnQuality "withdrawn-quality"
        "{0} images of this study were withdrawn: rejected for quality (113001). Do not report from them."
        "この検査の画像 {0} 件が取り下げられました：品質不良 (113001)。これらの画像で読影しないでください。"
    34 WithdrawnSafety "withdrawn-safety"
        "{0} images of this study were withdrawn: rejected for patient safety (113037). Do not report from them."
        "この検査の画像 {0} 件が取り下げられました：患者安全上の理由 (113037)。これらの画像で読影しないでください。"
    35 WithdrawnWorklist "withdrawn-worklist"
        "{0} images of this study were withdrawn: wrong worklist entry (113038). Do not report from them."
        "この検査の画像 {0} 件が取り下げられました：ワークリストの選択誤り (113038)。これらの画像で読影しないでください。"
    36 WithdrawnRetention "withdrawn-retention"
        "{0} images of this study were withdrawn: retention is over (113039). Do not report from them."
        "この検査の画像 {0} 件が取り下げられました：保存期間満了 (113039)。これらの画像で読影しないでください。"
    37 WithdrawnUnsaid "withdrawn-unsaid"
        "{0} images of this study were withdrawn; no reason is told. Do not report from them."
        "この検査の画像 {0} 件が取り下げられました（理由の通知なし）。これらの画像で読影しないでください。"
    38 ImagesCame "images-came"
        "Images of this order have come."
        "このオーダーの画像が届きました。"
    27 PatientsMixed "patients-mixed"
        "The images of this study name {0} different patients."
        "この検査の画像に、異なる患者が {0} 名含まれています。"
    28 CompleteDecided "complete-decided"
        "All {0} instances that are still expected are in custody; {1} will not come, a person has decided."
        "引き続き必要な {0} 件はすべて届いています。{1} 件は届かないものと担当者が判断しました。"
    39 Newer "newer"
        "A newer release says this in a sentence that this one does not have."
        "新しい版の文言のため、この版では表示できません。"
    // What to do.
    40 Wait "wait"
        "Nothing to do now."
        "対応は不要です。"
    41 AskSource "ask-source"
        "Ask the source for the missing images; if it lacks them, send them again from the modality."
        "送信元に不足画像を照会してください。なければ装置から再送してください。"
    42 CheckPerformed "check-performed"
        "See whether the examination was performed and its images were sent."
        "検査の実施と画像送信の有無を確認してください。"
    43 LinkOrder "link-order"
        "Link the study to its order, or enter the order."
        "検査をオーダーに紐付けるか、オーダーを登録してください。"
    44 CheckPatient "check-patient"
        "Compare the patient of images and order; then release, link or correct."
        "画像とオーダーの患者を照合し、解除・紐付け・修正のいずれかを行ってください。"
    45 CheckAccession "check-accession"
        "Compare the accession numbers; then link or correct."
        "受付番号を照合し、紐付けまたは修正を行ってください。"
    46 CheckWorklist "check-worklist"
        "Find the right order and patient for these images before they are read."
        "読影前に、正しいオーダーと患者を確認してください。"
    47 CheckCancelled "check-cancelled"
        "See whether the examination was performed after all."
        "取消後に検査が実施されたか確認してください。"
    48 LookAtGaps "look-at-gaps"
        "Compare the image counts with the modality."
        "装置側の枚数と照合してください。"
    49 CheckWithdrawn "check-withdrawn"
        "Reinstate the images if they are meant to be read."
        "読影に必要な画像であれば、取り下げを解除してください。"
    52 WaitForSource "wait-for-source"
        "Nothing to do now: the source is being asked for the missing images."
        "対応は不要です。不足画像を送信元に照会中です。"
    53 SendAgain "send-again"
        "Send the missing images again from the modality: the source did not give them."
        "送信元から取得できませんでした。不足画像を装置から再送してください。"
    54 RegisterNode "register-node"
        "Register this node at the source as a destination, then run `hikyaku recall`; or send the images again from the modality."
        "送信元に本ノードを送信先として登録し、`hikyaku recall` を実行するか、装置から再送してください。"
    55 MendSource "mend-source"
        "See to the source and its connection, then run `hikyaku recall`; or send the images again from the modality."
        "送信元と接続を確認し、`hikyaku recall` を実行するか、装置から再送してください。"
    58 DoNotReport "do-not-report"
        "Tell whoever reads this study, and correct a report that rests on these images; then acknowledge: hikyaku study UID --seen."
        "読影医に伝え、これらの画像に基づく報告があれば訂正し、確認後に hikyaku study UID --seen を実行してください。"
    50 CheckMixed "check-mixed"
        "Find out which images are whose; then release, dismiss, or send them again corrected."
        "どの画像がどの患者のものか確認し、解除・取りやめ、または修正して再送してください。"
    // What the source answered.
    60 SourceNotFound "source-not-found"
        "The source does not have the images."
        "送信元に該当する画像がありません。"
    61 SourceUnknownDestination "source-unknown-destination"
        "The source does not know this node as a destination (0xA801)."
        "送信元に本ノードが送信先として登録されていません (0xA801)。"
    62 SourceCannotSend "source-cannot-send"
        "The source could not send the images (0xA702)."
        "送信元が画像を送信できませんでした (0xA702)。"
    63 SourceTooMany "source-too-many"
        "The source is short of resources (0xA701)."
        "送信元の資源が不足しています (0xA701)。"
    64 SourceMismatch "source-mismatch"
        "The source refuses the request as malformed (0xA900)."
        "送信元が照会形式を拒否しました (0xA900)。"
    65 SourceFailed "source-failed"
        "The source failed with status {0}."
        "送信元がエラー {0} を返しました。"
    66 SourceUnreachable "source-unreachable"
        "The source cannot be reached."
        "送信元に接続できません。"
    67 SourceRefused "source-refused"
        "The source refuses this node (calling AE title, or the service)."
        "送信元が接続またはサービスを拒否しました。"
    68 SourceSome "source-some"
        "The source sent some of the images; {0} failed."
        "送信元は一部のみ送信しました。失敗 {0} 件。"
    69 SourceUnavailable "source-unavailable"
        "The source says that the images are unavailable."
        "送信元は該当画像を利用不可としています。"
    70 SourceFound "source-found"
        "The source has {0} instances of the study."
        "送信元にはこの検査の画像が {0} 件あります。"
    71 SourceSent "source-sent"
        "The source sent {0} of the missing images."
        "送信元から不足画像 {0} 件を受信しました。"
    73 PriorsChosen "priors-chosen"
        "{0} earlier studies of the patient are fetched."
        "過去検査 {0} 件を取得します。"
    74 PriorsNone "priors-none"
        "The source has no earlier study that the rule asks for."
        "条件に合う過去検査は送信元にありません。"
    // Notices.
    80 NoticeOpened "notice-opened"
        "A study needs attention: {0}"
        "検査に対応が必要です：{0}"
    81 NoticeSettled "notice-settled"
        "A study that needed attention is settled: {0}"
        "対応が必要だった検査は解決しました：{0}"
    90 NoticeTest "notice-test"
        "This is a test of notices"
        "通知の試験です"
    91 NoticeTestOnly "notice-test-only"
        "A person has asked for this test; no study is meant."
        "担当者による試験送信です。対象の検査はありません。"
    92 NoticeStation "notice-station"
        "Sent by: {0}"
        "送信元：{0}"
    93 NoticeStudy "notice-study"
        "Study: {0}"
        "検査：{0}"
    94 NoticeOrder "notice-order"
        "Order: {0}"
        "オーダー：{0}"
    95 NoticeLink "notice-link"
        "Look here: {0}"
        "詳細：{0}"
    96 NoticeFrom "notice-from"
        "From {0} at {1}. Nobody reads answers to this message."
        "{0} が {1} に自動送信しました。このメールに返信しないでください。"

    // Notices of reports: what they are about.
    100 TellCriticalResult "tell-critical-result"
        "A critical result waits for a person"
        "緊急所見の報告があり、確認を待っています"
    101 TellCriticalKnown "tell-critical-known"
        "A critical result is known to a person"
        "緊急所見が担当者に確認されました"
    102 TellReportOverdue "tell-report-overdue"
        "A report is overdue"
        "読影報告が期限を過ぎています"
    103 TellReportUnacknowledged "tell-report-unacknowledged"
        "A system has not said that it has a report"
        "読影報告の受領が確認できないシステムがあります"
    104 TellReportHeld "tell-report-held"
        "A report waits for a person"
        "読影報告が担当者の確認を待っています"
    105 TellStudyReceived "tell-study-received"
        "The reading centre has received a study"
        "読影側が検査を受領しました"
    106 TellQuestionAsked "tell-question-asked"
        "The other side asks about a study"
        "相手側から検査についての問い合わせがあります"
    107 TellFollowUpDue "tell-follow-up-due"
        "It is time to ask what became of a patient"
        "経過の確認時期になりました"
    // Notices of reports: why.
    110 CriticalSince "critical-since"
        "The report of this study is critical since {0}, and nobody has said yet that he or she knows."
        "この検査の報告は {0} から緊急扱いですが、確認した担当者がまだいません。"
    111 CriticalStep "critical-step"
        "The report of this study is critical since {0}; this is step {1} of the ladder, as nobody has answered yet."
        "この検査の報告は {0} から緊急扱いです。まだ応答がないため、連絡手順の第 {1} 段階として通知します。"
    112 CriticalKnownAt "critical-known-at"
        "A person has said at {0} that he or she knows."
        "{0} に担当者が確認しました。"
    113 ReceiptOverdue "receipt-overdue"
        "The reading centre has not said that it has the whole study; that was due at {0}."
        "読影側から全画像受領の連絡がありません。期限は {0} でした。"
    114 FinalOverdue "final-overdue"
        "No final report has come; it was due at {0}."
        "確定報告が届いていません。期限は {0} でした。"
    115 AcknowledgementOverdue "acknowledgement-overdue"
        "The final report is not acknowledged; that was due at {0}."
        "確定報告の受領確認がありません。期限は {0} でした。"
    116 NoYesFrom "no-yes-from"
        "{0} has had the report since {1} and has not said yes."
        "{0} は {1} に送られた報告をまだ受領していません。"
    117 HeldForMatch "held-for-match"
        "It is not sure to which study or patient the report belongs."
        "報告がどの検査・患者のものか確定できません。"
    118 HeldForSigner "held-for-signer"
        "The report is not signed, or by somebody who is not on the list."
        "報告に署名がないか、登録されていない署名者によるものです。"
    119 HeldOtherwise "held-otherwise"
        "The report cannot go on by itself."
        "報告を自動で処理できません。"
    120 ReceivedWhole "received-whole"
        "The reading centre has the whole study since {0}: {1} images."
        "読影側は {0} に検査の全画像 {1} 件を受領しました。"
    121 AskedBy "asked-by"
        "{0} has asked at {1}; the question itself is not told here."
        "{1} に {0} から問い合わせがありました（内容はここに記載されません）。"
    122 FollowUpSince "follow-up-since"
        "The final report of this study is old enough for a follow-up since {0}."
        "この検査の確定報告は {0} に経過確認の時期を迎えました。"
    // Notices of reports: what to do.
    130 AcknowledgeCritical "acknowledge-critical"
        "Read the report, tell the physician in charge, then say that you know: hikyaku critical ack ID."
        "報告を読んで担当医に伝え、確認した旨を hikyaku critical ack ID で登録してください。"
    131 SeeOverdue "see-overdue"
        "See what is late with hikyaku overdue, and call the other side."
        "hikyaku overdue で遅れを確認し、相手側に連絡してください。"
    132 SeeSystem "see-system"
        "See to the system and its connection; hikyaku report again sends the report once more."
        "システムと接続を確認してください。hikyaku report again で再送できます。"
    133 SeeHeld "see-held"
        "Look with hikyaku reports --held, then match, release or discard the report."
        "hikyaku reports --held で確認し、検査への紐付け・解除・破棄のいずれかを行ってください。"
    134 AnswerQuestion "answer-question"
        "Read it with hikyaku notes, and answer with hikyaku note."
        "hikyaku notes で内容を確認し、hikyaku note で回答してください。"
    135 FollowUp "follow-up"
        "Ask the other side with hikyaku note STUDY TEXT; then hikyaku report dismiss STUDY."
        "hikyaku note STUDY TEXT で相手側に確認し、済んだら hikyaku report dismiss STUDY を実行してください。"
}

impl<'b, C> Decode<'b, C> for Word {
    /// A sentence that only a later release has is [`Word::Newer`] to this one.
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let n = d.u32()?;
        let known = Self::ALL.iter().find(|word| **word as u32 == n);
        Ok(known.copied().unwrap_or(Self::Newer))
    }
}

impl<C> Encode<C> for Word {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.u32(*self as u32)?.ok()
    }
}

impl Serialize for Word {
    /// As the sentence that it is.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Sentence::from(*self).serialize(s)
    }
}

/// A sentence with what stands in its places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Sentence {
    /// Which.
    #[n(0)]
    pub word: Word,
    /// For `{0}`, `{1}`.
    #[n(1)]
    pub values: Vec<String>,
}

impl Sentence {
    /// A sentence with `values` in its places.
    pub fn new(word: Word, values: &[&dyn std::fmt::Display]) -> Self {
        Self { word, values: values.iter().map(ToString::to_string).collect() }
    }

    /// As people read it.
    pub fn text(&self, language: Language) -> String {
        let mut out = self.word.text(language).to_owned();
        for (n, value) in self.values.iter().enumerate() {
            out = out.replace(&format!("{{{n}}}"), value);
        }
        out
    }
}

impl From<Word> for Sentence {
    fn from(word: Word) -> Self {
        Self { word, values: Vec::new() }
    }
}

impl Serialize for Sentence {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        serialize_sentence(s, self.word.as_str(), |language| self.text(language))
    }
}

/// A sentence in JSON: the word for programs, both languages for people.
pub(crate) fn serialize_sentence<S: Serializer>(
    s: S,
    word: &str,
    text: impl Fn(Language) -> String,
) -> Result<S::Ok, S::Error> {
    let mut fields = s.serialize_struct("Sentence", 3)?;
    fields.serialize_field("word", word)?;
    fields.serialize_field("en", &text(Language::English))?;
    fields.serialize_field("ja", &text(Language::Japanese))?;
    fields.end()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn places(text: &str) -> BTreeSet<char> {
        text.split('{').skip(1).filter_map(|p| p.chars().next()).collect()
    }

    #[test]
    fn both_languages_say_every_sentence_with_the_same_places() {
        let mut words = BTreeSet::new();
        for word in Word::ALL {
            let (en, ja) = (word.text(Language::English), word.text(Language::Japanese));
            assert_eq!(places(en), places(ja), "{en}");
            assert!(!ja.is_ascii() && en.is_ascii(), "{en}");
            assert!(words.insert(word.as_str()), "{word:?} twice");
        }
    }

    #[test]
    fn the_pages_of_both_languages_list_every_sentence_that_is_shown() {
        let of_verdicts = [
            include_str!("../../docs/completeness.md"),
            include_str!("../../docs/ja/completeness.md"),
        ];
        let of_reports = [
            include_str!("../../docs/critical-results.md"),
            include_str!("../../docs/ja/critical-results.md"),
        ];
        let of_mails =
            ["notice-station", "notice-study", "notice-order", "notice-link", "notice-from"];
        let shown = Word::ALL.iter().filter(|word| !of_mails.contains(&word.as_str()));
        for word in shown {
            let reports = *word >= Word::TellCriticalResult;
            for page in if reports { of_reports } else { of_verdicts } {
                assert!(page.contains(&format!("`{}`", word.as_str())), "{word:?}");
            }
        }
    }

    #[test]
    fn a_sentence_of_a_later_release_is_read_and_every_other_comes_back_the_same() {
        for word in Word::ALL {
            let bytes = minicbor::to_vec(word).unwrap();
            assert_eq!(decode::<Word>(&bytes).unwrap(), *word);
        }
        let bytes = minicbor::to_vec(65_000_u32).unwrap();
        assert_eq!(decode::<Word>(&bytes).unwrap(), Word::Newer);
    }

    #[test]
    fn a_sentence_tells_its_numbers_in_both_languages() {
        let s = Sentence::new(Word::ShortOf, &[&1, &20]);
        assert!(s.text(Language::English).starts_with("1 of 20 instances"));
        assert_eq!(s.text(Language::Japanese), "報告された 20 件のうち 1 件が未到着です。");
        let json = serde_json::to_value(&s).unwrap();
        assert_eq!(json["word"], "short-of");
    }
}
