//! One request of a service beside storage: its data set gathered and judged, and the answer.
//!
//! | status | when |
//! |---|---|
//! | 0000 | whoever performs the services has said *yes* |
//! | 0105-0107, 0120, 0121 | what the data set lacks or has wrong, see `dicom::performed` and others |
//! | 0111, 0112 | the step exists already; there is no such step, or instance of commitment |
//! | 0110, with Error ID A710 | the step has ended |
//! | 0110 | the data set cannot be read; it failed here |
//! | 0115, 0118, 0123 | storage commitment: a bad argument, class or action type |
//! | 0117 | the SOP Instance UID is no UID |
//! | 0213, in C-FIND A700 | the data set is larger than [`DATA_SET_LENGTH_MAX`] |
//! | A900, C000 | C-FIND: the identifier does not fit; it cannot be read, or it failed here |

use aws_lc_rs::rand;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use tokio::sync::mpsc;

use super::negotiation::Context;
use super::services::{Caller, Matches, NewStep, Report, Reporter, Services, StepChange};
use super::store::{DRAIN_LENGTH_MAX, Endless};
use crate::dicom::command::{Operation, Request, Response, status};
use crate::dicom::dataset::{self, DATA_SET_LENGTH_MAX, DataSetError, text};
use crate::dicom::fault::Fault;
use crate::dicom::text::Repertoire;
use crate::dicom::{MODALITY_WORKLIST, availability, commitment, is_uid, performed};

/// A request whose data set is arriving.
#[derive(Debug)]
pub struct Performing {
    context: Context,
    request: Request,
    body: Vec<u8>,
    /// All bytes that came, kept or not.
    length: u64,
}

/// A query that is being answered.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) context: Context,
    pub(super) request: Request,
    pub(super) matches: Matches,
    /// The repertoire in which the peer asked, and is answered where that has all characters.
    pub(super) repertoire: Repertoire,
    pub(super) sent: usize,
}

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Performed {
    Answer(Response),
    Finding(Box<Finding>),
}

impl Performing {
    /// Begins with a request.
    pub fn begin(context: Context, request: Request) -> Self {
        Self { context, request, body: vec![], length: 0 }
    }

    /// The presentation context to answer in.
    pub fn context(&self) -> u8 {
        self.context.id
    }

    /// The request.
    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// Takes the next bytes of the data set. What is longer than may be is passed over to its
    /// end, because a peer listens only then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Endless> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length <= DATA_SET_LENGTH_MAX as u64 {
            self.body.extend_from_slice(bytes);
        } else {
            self.body = vec![];
        }
        if self.length > DRAIN_LENGTH_MAX { Err(Endless) } else { Ok(()) }
    }

    /// The answer with a refusal.
    pub(super) fn refuse(&self, fault: Fault) -> Response {
        let query = matches!(self.request.operation, Operation::Find(_));
        let fault = if query { fault.of_query() } else { fault };
        fault.answer(self.request.response())
    }

    /// The data set has ended: what comes of it.
    pub(super) async fn finish(
        mut self,
        services: &dyn Services,
        caller: Caller,
        reports: &mpsc::Sender<Report>,
    ) -> Performed {
        match self.perform(services, caller, reports).await {
            Ok(None) => {
                let response = self.request.response();
                Performed::Answer(Response { status: status::SUCCESS, ..response })
            }
            Ok(Some((matches, repertoire))) => {
                let Self { context, request, .. } = self;
                let finding = Finding { context, request, matches, repertoire, sent: 0 };
                Performed::Finding(Box::new(finding))
            }
            Err(fault) => Performed::Answer(self.refuse(fault)),
        }
    }

    async fn perform(
        &mut self,
        services: &dyn Services,
        caller: Caller,
        reports: &mpsc::Sender<Report>,
    ) -> Result<Option<(Matches, Repertoire)>, Fault> {
        self.judge()?;
        let attributes = self.data_set()?;
        match self.request.operation {
            Operation::Create if self.context.abstract_syntax == crate::dicom::PERFORMED_STEP => {
                performed::judge_create(&attributes)?;
                let instance = self.request.sop_instance.clone();
                services.create_step(caller, NewStep { instance, attributes }).await?;
            }
            Operation::Create => {
                services.announce(caller, availability::notice(&attributes)?).await?;
            }
            Operation::Set => {
                let status = performed::judge_set(&attributes)?;
                let instance = self.request.sop_instance.clone();
                let change = StepChange { instance, status, attributes };
                services.set_step(caller, change).await?;
            }
            Operation::Action(_) => {
                let asked = commitment::asked(&attributes)?;
                let reporter = Reporter::new(reports.clone(), self.context.id);
                services.commit(caller, asked, reporter).await?;
            }
            Operation::Find(_) => {
                if self.length == 0 {
                    let comment = "a query without an identifier";
                    return Err(Fault::new(status::DATA_SET_MISMATCH, comment));
                }
                let terms = text(&attributes, tags::SPECIFIC_CHARACTER_SET);
                let matches = services.worklist(caller, attributes).await?;
                return Ok(Some((matches, Repertoire::of(&terms))));
            }
            Operation::Get(_) | Operation::Move(..) | Operation::EventReport(_) => {
                return Err(Fault::new(status::UNRECOGNIZED_OPERATION, "not served here"));
            }
        }
        Ok(None)
    }

    /// What the command alone decides. An N-CREATE that leaves its instance to us gets one.
    fn judge(&mut self) -> Result<(), Fault> {
        let Request { operation, sop_class, sop_instance, .. } = &mut self.request;
        match operation {
            Operation::Action(_) => return commitment::judge_request(&self.request),
            Operation::Find(_) if sop_class != MODALITY_WORKLIST => {
                let comment = "the SOP class is not that of its context";
                return Err(Fault::new(status::SOP_CLASS_NOT_SUPPORTED, comment));
            }
            Operation::Find(_) => return Ok(()),
            _ => {}
        }
        if *sop_class != self.context.abstract_syntax {
            let comment = "the SOP class is not that of its context";
            return Err(Fault::new(status::NO_SUCH_SOP_CLASS, comment));
        }
        if *operation == Operation::Create && sop_instance.is_empty() {
            *sop_instance = new_uid();
        }
        if !is_uid(sop_instance) {
            let comment = "the SOP Instance UID is no UID";
            return Err(Fault::new(status::INVALID_SOP_INSTANCE, comment));
        }
        Ok(())
    }

    fn data_set(&mut self) -> Result<InMemDicomObject, Fault> {
        let too_large = || Fault::no_room("the data set is larger than this node takes");
        if self.length > DATA_SET_LENGTH_MAX as u64 {
            return Err(too_large());
        }
        let body = std::mem::take(&mut self.body);
        dataset::read(&body, &self.context.transfer_syntax).map_err(|e| match e {
            DataSetError::TooLarge => too_large(),
            DataSetError::TooDeep => Fault::failed("the data set is nested too deeply"),
            DataSetError::Unreadable(_) | DataSetError::Syntax(_) => {
                Fault::failed("the data set cannot be read")
            }
        })
    }
}

/// A UID of a random number (PS3.5 B.2).
fn new_uid() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the kernel gives random bytes");
    // Version 4, variant 1 (RFC 9562 5.4).
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::command::Priority;
    use crate::dicom::{EXPLICIT_VR_LE, PERFORMED_STEP};

    fn performing(class: &str, operation: Operation, instance: &str) -> Performing {
        let context = Context {
            id: 1,
            abstract_syntax: class.into(),
            transfer_syntax: EXPLICIT_VR_LE.into(),
        };
        let request = Request {
            operation,
            message_id: 3,
            sop_class: class.into(),
            sop_instance: instance.into(),
            has_data_set: true,
        };
        Performing::begin(context, request)
    }

    #[test]
    fn a_step_without_a_uid_gets_one_and_one_with_a_bad_uid_is_refused() {
        let mut p = performing(PERFORMED_STEP, Operation::Create, "");
        assert_eq!(p.judge(), Ok(()));
        let made = &p.request.sop_instance;
        assert!(is_uid(made) && made.starts_with("2.25."), "{made}");
        assert_eq!(p.request.response().sop_instance, *made);
        for (operation, uid) in [(Operation::Create, "../1"), (Operation::Set, "")] {
            let mut p = performing(PERFORMED_STEP, operation, uid);
            assert_eq!(p.judge().unwrap_err().status, 0x0117);
        }
    }

    #[test]
    fn a_data_set_that_is_too_large_costs_no_memory_and_is_refused_at_its_end() {
        let megabyte = vec![0; 1 << 20];
        for (operation, class, status) in [
            (Operation::Set, PERFORMED_STEP, 0x0213),
            (Operation::Find(Priority::Medium), MODALITY_WORKLIST, 0xA700),
        ] {
            let mut p = performing(class, operation, "1.2");
            for _ in 0..9 {
                p.push(&megabyte).unwrap();
            }
            assert_eq!(p.body.capacity(), 0);
            let fault = p.data_set().unwrap_err();
            assert_eq!(p.refuse(fault).status, status);
        }
    }
}
