//! What an answer to a request that is passed on means (PS3.4 F.7.2, PS3.7 10.1). Pure.
//!
//! | answer | means |
//! |---|---|
//! | 0000, a warning | the receiver has it |
//! | 0111 to N-CREATE | it has the step already: an answer was lost, or the modality told it too |
//! | 0110 with Error ID A710, when an answer may have been lost | it has the last request already |
//! | 0112 to N-SET | it has lost the step: all of it again, once |
//! | 0110, 0213 | not now |
//! | everything else | it refuses: somebody must look |

use super::record::Request;
use crate::dicom::command::status;
use crate::inquiry::Answer;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Became {
    /// The receiver has taken it.
    Taken,
    /// It has it from before.
    Known,
    /// It does not know the step that changes: the step begins anew there.
    Lost,
    /// Not now; in words, why.
    Later(String),
    /// Not as it is; in words, why.
    Refused(String),
}

/// What an answer means. `again`: the step was begun anew at this receiver before. `unsure`: an
/// earlier try may have reached the receiver.
pub(super) fn became(request: &Request, answer: &Answer, again: bool, unsure: bool) -> Became {
    // The comment is the receiver's, and may name a patient.
    let words = || format!("it answers {:04X}", answer.status);
    match answer.status {
        _ if answer.is_done() => Became::Taken,
        status::DUPLICATE_SOP_INSTANCE if request.begins => Became::Known,
        status::NO_SUCH_SOP_INSTANCE if !request.begins && !again => Became::Lost,
        status::PROCESSING_FAILURE if answer.error_id == Some(status::ERROR_ID_STEP_IS_FINAL) => {
            match unsure {
                true => Became::Known,
                false => Became::Refused("the step has ended there without this change".into()),
            }
        }
        status::PROCESSING_FAILURE | status::RESOURCE_LIMITATION => Became::Later(words()),
        _ => Became::Refused(words()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn request(begins: bool) -> Request {
        Request {
            number: 1,
            instance: "1.2".into(),
            begins,
            ends: !begins,
            charset: String::new(),
            parts: 1,
            to: vec!["ris".into()],
            at: Timestamp(0),
        }
    }

    fn answer(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    #[test]
    fn a_step_that_the_receiver_has_already_is_there_and_one_that_it_has_lost_begins_anew_once() {
        let (create, set) = (request(true), request(false));
        assert_eq!(became(&create, &answer(0), false, false), Became::Taken);
        assert_eq!(became(&set, &answer(0x0107), false, false), Became::Taken, "a warning");
        assert_eq!(became(&create, &answer(0x0111), false, false), Became::Known);
        assert_eq!(became(&set, &answer(0x0112), false, false), Became::Lost);
        assert!(matches!(became(&set, &answer(0x0112), true, false), Became::Refused(_)));
        assert!(matches!(became(&create, &answer(0x0112), false, false), Became::Refused(_)));
    }

    #[test]
    fn an_end_whose_answer_was_lost_is_there_and_one_that_came_too_late_is_refused() {
        let ended = Answer { error_id: Some(0xA710), ..answer(0x0110) };
        assert_eq!(became(&request(false), &ended, false, true), Became::Known);
        assert!(matches!(became(&request(false), &ended, false, false), Became::Refused(_)));
        let busy = became(&request(false), &answer(0x0110), false, true);
        assert_eq!(busy, Became::Later("it answers 0110".into()));
        for status in [0x0105, 0x0106, 0x0117, 0x0120, 0x0121, 0x0122, 0x0124, 0xC001] {
            let became = became(&request(true), &answer(status), false, false);
            assert!(matches!(became, Became::Refused(_)), "{status:04X}");
        }
    }
}
