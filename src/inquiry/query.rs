//! C-FIND (PS3.4 C.4.1, K.4): matches as they come, up to a limit, until the caller has enough.

use dicom_object::InMemDicomObject;

use super::association::{Association, Heard};
use super::requestor::Wanted;
use super::{Answer, InquiryError, Target};
use crate::dicom::command::{Operation, Priority, status};
use crate::dicom::text::Repertoire;

/// How a query ended.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryEnd {
    /// The final answer: 0000, FE00 when it was cancelled, B001 when the peer gives no more at a
    /// time, else a failure.
    pub answer: Answer,
    /// Whether there may be more matches than were given: the limit was reached, here or there,
    /// or the query cancelled.
    pub more: bool,
    /// Whether the peer does not match one or more of the optional keys (FF01).
    pub keys_unsupported: bool,
}

/// A query under way. Dropped, it breaks the connection off without a word; better is
/// [`cancel`](Self::cancel).
#[derive(Debug)]
pub struct Query {
    association: Option<Association>,
    left: usize,
    keys_unsupported: bool,
    cancelled: bool,
    end: Option<QueryEnd>,
}

impl Query {
    /// Begins a query for what matches `identifier`; at most `limit` matches are given.
    pub async fn begin(
        target: &Target,
        sop_class: &str,
        identifier: &InMemDicomObject,
        repertoire: Repertoire,
        limit: usize,
    ) -> Result<Self, InquiryError> {
        let mut association = Association::open(target, vec![Wanted::scu(sop_class)]).await?;
        let operation = Operation::Find(Priority::Medium);
        if let Err(e) = association.ask(sop_class, operation, "", identifier, repertoire).await {
            if matches!(e, InquiryError::NotTaken(_) | InquiryError::DataSet(_)) {
                association.release().await;
            }
            return Err(e);
        }
        Ok(Self {
            association: Some(association),
            left: limit,
            keys_unsupported: false,
            cancelled: false,
            end: None,
        })
    }

    /// The next match; `None` when there is no more, and [`end`](Self::end) says why. A match
    /// beyond the limit cancels the query. Dropped half-way, it can be called again.
    pub async fn next(&mut self) -> Result<Option<InMemDicomObject>, InquiryError> {
        loop {
            let Some(association) = &mut self.association else { return Ok(None) };
            let heard = association.hear().await.inspect_err(|_| self.association = None)?;
            let Heard::Answer(response, data) = heard else {
                self.association = None;
                return Err(InquiryError::Broke("an image in answer to a query".into()));
            };
            if !status::is_pending(response.status) {
                let more = self.cancelled || response.status == status::LIMIT_REACHED;
                let answer = Answer::new(*response, data);
                let keys_unsupported = self.keys_unsupported;
                self.end = Some(QueryEnd { answer, more, keys_unsupported });
                if let Some(association) = self.association.take() {
                    association.release().await;
                }
                return Ok(None);
            }
            self.keys_unsupported |= response.status == status::PENDING_KEYS_UNSUPPORTED;
            match (data, self.left) {
                // What was on its way when we cancelled.
                _ if self.cancelled => {}
                (_, 0) => self.say_cancel().await?,
                (Some(found), _) => {
                    self.left -= 1;
                    return Ok(Some(found));
                }
                // No match, yet it counts: a peer could go on so for ever.
                (None, _) => self.left -= 1,
            }
        }
    }

    async fn say_cancel(&mut self) -> Result<(), InquiryError> {
        self.cancelled = true;
        match &mut self.association {
            Some(association) => {
                association.cancel().await.inspect_err(|_| self.association = None)
            }
            None => Ok(()),
        }
    }

    /// Cancels (C-CANCEL) and waits for the final answer; what still matches on the way is
    /// dropped.
    pub async fn cancel(mut self) -> Result<Option<QueryEnd>, InquiryError> {
        if !self.cancelled {
            self.say_cancel().await?;
        }
        while self.next().await?.is_some() {}
        Ok(self.end)
    }

    /// How it ended; `None` before it has.
    pub const fn end(&self) -> Option<&QueryEnd> {
        self.end.as_ref()
    }
}

/// All matches, at most `limit`, and how the query ended.
pub async fn find(
    target: &Target,
    sop_class: &str,
    identifier: &InMemDicomObject,
    repertoire: Repertoire,
    limit: usize,
) -> Result<(Vec<InMemDicomObject>, QueryEnd), InquiryError> {
    let mut query = Query::begin(target, sop_class, identifier, repertoire, limit).await?;
    let mut found = vec![];
    while let Some(one) = query.next().await? {
        found.push(one);
    }
    let missing = || InquiryError::Broke("the query ended without an answer".into());
    Ok((found, query.end.ok_or_else(missing)?))
}
