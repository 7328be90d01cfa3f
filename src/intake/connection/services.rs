//! The services beside storage on one connection: requests performed, matches sent as they are
//! found, outcomes of commitment reported between messages.
//!
//! One query at a time, and one event report that waits for its answer. Both are over when the
//! association is: the finder and the reporter learn of it.

use std::io;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::{Connection, State};
use crate::dicom::command::{Command, Operation, Request, Response, field, status};
use crate::dicom::dataset;
use crate::dicom::fault::Fault;
use crate::dicom::pdata::{put_command, put_data};
use crate::dicom::text::Repertoire;
use crate::dicom::{STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE};
use crate::intake::negotiation::Context;
use crate::intake::perform::{Finding, Performed, Performing};
use crate::intake::services::{Caller, Found, Report, ReportError};

/// An event report that the peer has not answered yet.
pub(super) struct Awaited {
    message_id: u16,
    told: oneshot::Sender<Result<(), ReportError>>,
    /// Until when the peer may take.
    pub(super) due: Instant,
}

impl Connection {
    /// Whether an outcome may be reported now: between messages, one at a time.
    pub(super) fn may_report(&self) -> bool {
        matches!(self.association.state(), State::Established(_))
            && self.closing.is_none()
            && self.awaited.is_none()
            && self.finding.is_none()
            && !self.association.message_under_way()
    }

    pub(super) async fn begin_service(
        &mut self,
        context: Context,
        request: Request,
    ) -> io::Result<()> {
        let has_data_set = request.has_data_set;
        self.performing = Some(Performing::begin(context, request));
        if has_data_set { Ok(()) } else { self.finish_service().await }
    }

    pub(super) async fn finish_service(&mut self) -> io::Result<()> {
        let Some(performing) = self.performing.take() else { return Ok(()) };
        let State::Established(established) = self.association.state() else { return Ok(()) };
        let caller = Caller::new(&established.admitted, self.from.ip().to_canonical());
        let context = performing.context();
        let operation = performing.request().operation.clone();
        let busy = matches!(operation, Operation::Find(_)) && self.finding.is_some();
        let response = if busy {
            performing.refuse(Fault::no_room("one query at a time on an association"))
        } else {
            let Some(services) = self.intake.services.clone() else { return Ok(()) };
            let late = Fault::failed("this node was too slow; send again later");
            let late = performing.refuse(late);
            let performed = performing.finish(&*services, caller, &self.reporting.0);
            match timeout(self.door.config.limits.dimse, performed).await {
                Ok(Performed::Answer(response)) => response,
                Ok(Performed::Finding(finding)) => {
                    self.finding = Some(finding);
                    return Ok(());
                }
                Err(_) => late,
            }
        };
        self.note_service(&operation, &response);
        self.respond(context, response).await
    }

    fn note_service(&self, operation: &Operation, response: &Response) {
        let from = self.from;
        let field = format_args!("{:04X}", operation.field());
        let status = format_args!("{:04X}", response.status);
        if [status::SUCCESS, status::CANCELLED].contains(&response.status) {
            tracing::info!(%from, field, "request performed");
        } else {
            tracing::warn!(%from, field, status, comment = response.comment, "request refused");
        }
    }

    /// The next of the query under way; never, when there is none. Cancel-safe.
    pub(super) async fn next_found(finding: &mut Option<Box<Finding>>) -> Option<Found> {
        match finding {
            Some(finding) => finding.matches.next().await,
            None => std::future::pending().await,
        }
    }

    /// Sends a match, or the end of the query.
    pub(super) async fn found(&mut self, found: Option<Found>) -> io::Result<()> {
        let limit = self.door.config.limits.matches;
        let Some(finding) = &mut self.finding else { return Ok(()) };
        let set = match found {
            Some(Found::Match(_)) if finding.sent >= limit => {
                return self.end_query(status::LIMIT_REACHED, "there are more matches").await;
            }
            Some(Found::Match(set)) => set,
            Some(Found::End) => return self.end_query(status::SUCCESS, "").await,
            None => {
                let comment = "the query did not come to its end";
                return self.end_query(status::CANNOT_UNDERSTAND, comment).await;
            }
        };
        let wanted = match finding.repertoire {
            Repertoire::JAPANESE => Repertoire::JAPANESE,
            _ => Repertoire::UTF8,
        };
        let Ok(data) = dataset::write(&set, &finding.context.transfer_syntax, wanted) else {
            let comment = "a match could not be written";
            return self.end_query(status::CANNOT_UNDERSTAND, comment).await;
        };
        finding.sent += 1;
        let response = Response {
            status: match finding.matches.keys_unsupported {
                true => status::PENDING_KEYS_UNSUPPORTED,
                false => status::PENDING,
            },
            has_data_set: true,
            ..finding.request.response()
        };
        let context = finding.context.id;
        self.say(context, &Command::Response(response), &data).await
    }

    async fn end_query(&mut self, status: u16, comment: &str) -> io::Result<()> {
        let Some(finding) = self.finding.take() else { return Ok(()) };
        let Finding { context, request, .. } = *finding;
        let comment = comment.to_owned();
        let response = Response { status, comment, ..request.response() };
        self.note_service(&request.operation, &response);
        self.respond(context.id, response).await
    }

    /// C-CANCEL. For a query that is over already it comes too late and says nothing.
    pub(super) async fn cancel(&mut self, message_id: u16) -> io::Result<()> {
        match &self.finding {
            Some(finding) if finding.request.message_id == message_id => {
                self.end_query(status::CANCELLED, "").await
            }
            _ => Ok(()),
        }
    }

    /// Reports an outcome.
    pub(super) async fn report(&mut self, report: Report) -> io::Result<()> {
        let State::Established(established) = self.association.state() else { return Ok(()) };
        let Report { context, outcome, told } = report;
        let Some(Context { transfer_syntax, .. }) = established.contexts.get(&context) else {
            return Ok(());
        };
        let Ok(data) = dataset::write(&outcome.data_set(), transfer_syntax, Repertoire::UTF8)
        else {
            return Ok(());
        };
        self.message_ids = self.message_ids.checked_add(1).unwrap_or(1);
        let request = Request {
            operation: Operation::EventReport(outcome.event_type()),
            message_id: self.message_ids,
            sop_class: STORAGE_COMMITMENT.to_owned(),
            sop_instance: STORAGE_COMMITMENT_INSTANCE.to_owned(),
            has_data_set: true,
        };
        self.say(context, &Command::Request(request), &data).await?;
        let due = Instant::now() + self.door.config.limits.dimse;
        self.awaited = Some(Awaited { message_id: self.message_ids, told, due });
        Ok(())
    }

    /// A response: to the event report, or to nothing that was asked.
    pub(super) fn answered(&mut self, response: &Response) {
        let expected = field::N_EVENT_REPORT_RQ | field::RESPONSE;
        let ours =
            |a: &Awaited| response.field == expected && response.responded_to == a.message_id;
        if let Some(awaited) = self.awaited.take_if(|a| ours(a)) {
            let taken = match response.status {
                status::SUCCESS => Ok(()),
                refused => Err(ReportError::Refused(refused)),
            };
            // Nobody may be waiting any more; then it is reported again.
            let _ = awaited.told.send(taken);
        }
    }

    /// The peer has not answered the event report in time. The association goes on.
    pub(super) fn give_up_report(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            let _ = awaited.told.send(Err(ReportError::Unanswered));
        }
    }

    /// The association has ended: whoever finds, or has something to report, learns of it now.
    pub(super) fn end_services(&mut self) {
        self.performing = None;
        self.finding = None;
        self.awaited = None;
        self.reporting.1.close();
        while self.reporting.1.try_recv().is_ok() {}
    }

    /// Writes a command set with its data set.
    async fn say(&mut self, context: u8, command: &Command, data: &[u8]) -> io::Result<()> {
        let State::Established(established) = self.association.state() else { return Ok(()) };
        let length = established.write_length;
        self.out.clear();
        put_command(&mut self.out, context, &command.encode(), length);
        put_data(&mut self.out, context, data, true, length);
        let written = self.write().await;
        // Outcomes may be megabytes; an association keeps none of that.
        self.out.shrink_to(super::OUT_LENGTH_KEPT);
        written
    }
}
