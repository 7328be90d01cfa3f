//! C-MOVE and C-GET (PS3.4 C.4.2, C.4.3): an archive is asked to send, to somebody or to us.

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use tokio_util::sync::CancellationToken;

use super::association::{Association, Heard};
use super::requestor::Wanted;
use super::{Answer, InquiryError, SubOperations, Target};
use crate::dicom::AeTitle;
use crate::dicom::command::{Operation, Priority, Response, StoreRequest, field, status};
use crate::dicom::dataset::text;
use crate::dicom::text::Repertoire;

/// How a retrieval ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieved {
    /// The final answer: 0000 all was sent, B000 some failed, A701 or A702 out of resources, A801
    /// move destination unknown, A900 identifier does not fit, FE00 cancelled, Cxxx.
    pub answer: Answer,
    /// The sub-operations, as the peer last counted them.
    pub counts: SubOperations,
    /// SOP Instance UIDs that failed (0008,0058), as far as the peer names them.
    pub failed: Vec<String>,
}

/// Asks the peer to send what `identifier` names to `destination`, an AE title that it knows.
/// `progress` hears its counts as they come. Cancelled, it says C-CANCEL, and waits for the final
/// answer.
pub async fn move_to(
    target: &Target,
    sop_class: &str,
    destination: &AeTitle,
    identifier: &InMemDicomObject,
    cancel: &CancellationToken,
    mut progress: impl FnMut(SubOperations),
) -> Result<Retrieved, InquiryError> {
    let operation = Operation::Move(Priority::Medium, destination.as_str().to_owned());
    let wanted = vec![Wanted::scu(sop_class)];
    let mut retrieval = Retrieval::begin(target, wanted, operation, identifier).await?;
    loop {
        match retrieval.hear(cancel, &mut progress).await? {
            Step::Over(retrieved) => return Ok(retrieved),
            Step::Pending => {}
            Step::Store(..) | Step::Data(..) => return Err(retrieval.unasked().await),
        }
    }
}

/// Takes the images of a C-GET.
pub trait Receiver: Send {
    /// An image begins; its data set stands in `syntax`.
    fn begin(&mut self, request: &StoreRequest, syntax: &str) -> impl Future<Output = ()> + Send;

    /// The next bytes of its data set.
    fn push(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;

    /// It has ended: the status to answer, 0000 only when it is kept. An image that never ends
    /// so was cut off.
    fn finish(&mut self) -> impl Future<Output = u16> + Send;
}

/// Asks the peer to send what `identifier` names to us, on this association: images of
/// `storage_classes`, each with the transfer syntaxes that are taken for it, best first; at most
/// 127 of them. Cancelled, it says C-CANCEL, and waits for the final answer.
pub async fn get(
    target: &Target,
    sop_class: &str,
    storage_classes: Vec<(String, Vec<String>)>,
    identifier: &InMemDicomObject,
    cancel: &CancellationToken,
    receiver: &mut impl Receiver,
) -> Result<Retrieved, InquiryError> {
    let storage = storage_classes
        .into_iter()
        .map(|(class, syntaxes)| Wanted { syntaxes, ..Wanted::scp(&class) });
    let wanted = std::iter::once(Wanted::scu(sop_class)).chain(storage).collect();
    let operation = Operation::Get(Priority::Medium);
    let mut retrieval = Retrieval::begin(target, wanted, operation, identifier).await?;
    let mut image = None;
    loop {
        match retrieval.hear(cancel, &mut |_| {}).await? {
            Step::Over(retrieved) => return Ok(retrieved),
            Step::Pending => {}
            Step::Store(context, syntax, request) => {
                receiver.begin(&request, &syntax).await;
                image = Some((context, request));
            }
            Step::Data(data, last) => {
                receiver.push(&data).await;
                let Some((context, request)) = image.take_if(|_| last) else { continue };
                let response = Response {
                    field: field::C_STORE_RSP,
                    responded_to: request.message_id,
                    sop_class: request.sop_class,
                    sop_instance: request.sop_instance,
                    status: receiver.finish().await,
                    ..Response::default()
                };
                retrieval.association()?.answer(context, response).await?;
            }
        }
    }
}

enum Step {
    Over(Retrieved),
    Pending,
    Store(u8, String, Box<StoreRequest>),
    Data(bytes::Bytes, bool),
}

/// A C-MOVE or C-GET under way.
struct Retrieval {
    association: Option<Association>,
    counts: SubOperations,
    cancelled: bool,
}

impl Retrieval {
    async fn begin(
        target: &Target,
        wanted: Vec<Wanted>,
        operation: Operation,
        identifier: &InMemDicomObject,
    ) -> Result<Self, InquiryError> {
        let class = wanted[0].sop_class.clone();
        let mut association = Association::open(target, wanted).await?;
        let repertoire = Repertoire::UTF8;
        if let Err(e) = association.ask(&class, operation, "", identifier, repertoire).await {
            if matches!(e, InquiryError::NotTaken(_) | InquiryError::DataSet(_)) {
                association.release().await;
            }
            return Err(e);
        }
        Ok(Self {
            association: Some(association),
            counts: SubOperations::default(),
            cancelled: false,
        })
    }

    fn association(&mut self) -> Result<&mut Association, InquiryError> {
        let gone = || InquiryError::Broke("the association is gone".into());
        self.association.as_mut().ok_or_else(gone)
    }

    async fn hear(
        &mut self,
        cancel: &CancellationToken,
        progress: &mut impl FnMut(SubOperations),
    ) -> Result<Step, InquiryError> {
        let cancelled = self.cancelled;
        let association = self.association()?;
        let heard = tokio::select! {
            biased;
            () = cancel.cancelled(), if !cancelled => {
                association.cancel().await?;
                self.cancelled = true;
                return Ok(Step::Pending);
            }
            heard = association.hear() => heard?,
        };
        let (response, data) = match heard {
            Heard::Answer(response, data) => (response, data),
            Heard::Store(context, syntax, request) => {
                return Ok(Step::Store(context, syntax, request));
            }
            Heard::Data(data, last) => return Ok(Step::Data(data, last)),
        };
        if let Some(counts) = response.sub_operations {
            self.counts = counts;
        }
        if status::is_pending(response.status) {
            progress(self.counts);
            return Ok(Step::Pending);
        }
        if let Some(association) = self.association.take() {
            association.release().await;
        }
        let list = data.as_ref().map(|set| text(set, tags::FAILED_SOP_INSTANCE_UID_LIST));
        let list = list.unwrap_or_default();
        let failed = list.split('\\').filter(|uid| !uid.is_empty()).map(str::to_owned).collect();
        Ok(Step::Over(Retrieved {
            answer: Answer::new(*response, data),
            counts: self.counts,
            failed,
        }))
    }

    async fn unasked(mut self) -> InquiryError {
        if let Some(association) = &mut self.association {
            association.abort().await;
        }
        InquiryError::Broke("an image in answer to C-MOVE".into())
    }
}
