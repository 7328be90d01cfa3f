//! One connection: the socket and its timeouts around an [`Association`].
//!
//! Reads take what has come, up to [`READ_LENGTH`], and every answer is one write. TCP_NODELAY is
//! on, and TCP_QUICKACK is armed again after each read: a sender with Nagle's algorithm on (every
//! stock dcmtk) holds back the end of an image until what it sent before is acknowledged, and
//! the kernel may delay that by 40 ms.

mod services;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dicom_ul::pdu::{AssociationAC, Pdu};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::stream::Stream;
use super::access::{Admitted, Refusal};
use super::association::{Action, Association, Cause, Door, Event, State};
use super::listener::{Intake, Standing};
use super::message::Step;
use super::perform::{Finding, Performing};
use super::services::{Found, REPORTS_MAX, Report};
use super::store::{Answered, Store};
use crate::dicom::command::{Command, Response, field, status};
use crate::dicom::pdata::{Decoder, put_command, put_pdu};

/// Most bytes that one read takes.
pub const READ_LENGTH: usize = 256 * 1024;

/// Most bytes of room that the buffer for answers keeps.
const OUT_LENGTH_KEPT: usize = 64 * 1024;

/// How long the peer may take to close the connection after the last word (ARTIM in Sta13).
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// Most bytes that are passed over while waiting for the peer to close.
const CLOSE_LENGTH_MAX: usize = 1024 * 1024;

/// How long a connection that is refused anyway may take to say A-ASSOCIATE-RQ.
const REFUSE_WAIT: Duration = Duration::from_secs(5);

/// A connection that has been accepted, before its first byte.
pub(super) struct Arrival {
    pub(super) tcp: TcpStream,
    pub(super) from: SocketAddr,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) door: Door,
    pub(super) standing: Arc<Standing>,
}

/// Serves one connection to its end.
pub(super) async fn serve(arrival: Arrival, intake: Arc<Intake>, stop: CancellationToken) {
    let Arrival { tcp, from, tls, door, standing } = arrival;
    let opened = Instant::now();
    let artim = match door.refuse {
        Some(_) => REFUSE_WAIT.min(door.config.limits.artim),
        None => door.config.limits.artim,
    };
    let request_due = opened + artim;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%from, %error, "connection gone before it began");
        return;
    }
    let stream = match tls {
        None => Stream::Plain(tcp),
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(tcp);
            match tokio::time::timeout_at(request_due, handshake).await {
                Ok(Ok(s)) => Stream::Tls(Box::new(s)),
                Ok(Err(error)) => return intake.tls_refused(from, &error.to_string()),
                Err(_) => return intake.tls_refused(from, "no TLS handshake in time"),
            }
        }
    };
    let association = Association::new(door.clone());
    let connection = Connection {
        stream,
        from,
        intake,
        stop,
        stop_due: None,
        door,
        standing,
        association,
        decoder: Decoder::new(),
        buffer: BytesMut::new(),
        out: vec![],
        store: None,
        performing: None,
        finding: None,
        reporting: mpsc::channel(REPORTS_MAX),
        awaited: None,
        message_ids: 0,
        open: None,
        tally: Tally::default(),
        request_due,
        pending: None,
        message_began: opened,
        closing: None,
    };
    connection.run().await;
}

/// Counts an established association for as long as it lives.
struct Open(prometheus::IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What came through an association.
#[derive(Default)]
struct Tally {
    stored: u64,
    refused: u64,
    bytes: u64,
    /// The status of the last refusal: a sender that is refused again and again fills no log.
    last_refusal: Option<u16>,
}

/// What is to be done next.
enum Next {
    /// Something has come, or a time has passed.
    Event(Event),
    /// A match, or the end of the query; `None` when whoever found them is gone.
    Found(Option<Found>),
    /// An outcome to report.
    Report(Report),
}

struct Connection {
    stream: Stream,
    from: SocketAddr,
    intake: Arc<Intake>,
    stop: CancellationToken,
    /// When the node is stopping: until when a message under way may finish.
    stop_due: Option<Instant>,
    door: Door,
    standing: Arc<Standing>,
    association: Association,
    decoder: Decoder,
    buffer: BytesMut,
    out: Vec<u8>,
    store: Option<Store>,
    /// A request of another service whose data set is arriving.
    performing: Option<Performing>,
    /// The query under way.
    finding: Option<Box<Finding>>,
    /// Outcomes of commitment that are to be reported on this association.
    reporting: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// The report that waits for its answer.
    awaited: Option<services::Awaited>,
    /// The last message ID of ours.
    message_ids: u16,
    open: Option<Open>,
    tally: Tally,
    request_due: Instant,
    /// What happened here rather than on the line.
    pending: Option<Event>,
    /// When the message under way began.
    message_began: Instant,
    /// When the last word was said, and how much was passed over since.
    closing: Option<(Instant, usize)>,
}

impl Connection {
    async fn run(mut self) {
        self.converse().await;
        // With TLS this says close_notify, so that the end is not taken for a cut.
        let _ = timeout(CLOSE_WAIT, self.stream.close()).await;
    }

    async fn converse(&mut self) {
        loop {
            let next = match self.next_buffered() {
                Some(event) => Next::Event(event),
                None => self.read().await,
            };
            let acted = match next {
                Next::Event(event) => {
                    let was_under_way = self.association.message_under_way();
                    let action = self.association.on_event(event);
                    if !was_under_way {
                        self.message_began = Instant::now();
                    }
                    self.act(action).await
                }
                Next::Found(found) => self.found(found).await.map(|()| true),
                Next::Report(report) => self.report(report).await.map(|()| true),
            };
            match acted {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(from = %self.from, %error, "cannot write");
                    let action = self.association.on_event(Event::Closed);
                    self.note_end(&action);
                    return;
                }
            }
        }
    }

    /// What stands in the buffer already. After the last word nothing is decoded any more.
    fn next_buffered(&mut self) -> Option<Event> {
        if self.pending.is_some() {
            return self.pending.take();
        }
        if let Some((_, passed_over)) = &mut self.closing {
            *passed_over += self.buffer.len();
            self.buffer.clear();
            return None;
        }
        match self.decoder.poll(&mut self.buffer) {
            Ok(event) => event.map(Event::Received),
            Err(e) => Some(Event::Malformed(e)),
        }
    }

    /// Waits for bytes; gives the event when something else happens first, and otherwise what
    /// the bytes begin with. Bytes win over a time that passes meanwhile: the peer was not silent
    /// when it was this node that was busy.
    async fn read(&mut self) -> Next {
        loop {
            let now = Instant::now();
            if self.stop_due.is_none() && self.stop.is_cancelled() {
                self.stop_due = Some(now + self.door.config.limits.drain);
            }
            if let Some(event) = self.overdue(now) {
                return Next::Event(event);
            }
            // All that was split off has been dropped by now: this moves little and allocates
            // nothing but the first time.
            self.buffer.reserve(READ_LENGTH);
            let due = self.due(now);
            let stop = self.stop.clone();
            let (may_report, may_find) = (self.may_report(), !self.association.message_under_way());
            let answer_due = self.awaited.as_ref().map_or(due, |a| a.due);
            tokio::select! {
                biased;
                read = self.stream.read(&mut self.buffer) => match read {
                    Ok(0) | Err(_) => return Next::Event(Event::Closed),
                    Ok(_) => {
                        self.stream.acknowledge_at_once();
                        if let Some(event) = self.next_buffered() {
                            return Next::Event(event);
                        }
                    }
                },
                () = stop.cancelled(), if self.stop_due.is_none() => {}
                found = Self::next_found(&mut self.finding), if may_find => {
                    return Next::Found(found);
                }
                Some(report) = self.reporting.1.recv(), if may_report => {
                    return Next::Report(report);
                }
                () = tokio::time::sleep_until(answer_due), if self.awaited.is_some() => {
                    self.give_up_report();
                }
                () = tokio::time::sleep_until(due) => {
                    return Next::Event(self.overdue(due).unwrap_or(Event::Expired));
                }
            }
        }
    }

    /// Whether it ends now, however busy the peer is. The node's stopping ends an association at
    /// once between messages, and within a message when its time is up.
    fn overdue(&self, now: Instant) -> Option<Event> {
        if let Some((since, passed_over)) = self.closing {
            let over = since + CLOSE_WAIT <= now || passed_over > CLOSE_LENGTH_MAX;
            return over.then_some(Event::Expired);
        }
        let under_way = self.association.message_under_way();
        if self.stop_due.is_some_and(|due| !under_way || due <= now) {
            return Some(Event::Stop);
        }
        let endless = match self.association.state() {
            State::AwaitRequest => self.request_due <= now,
            _ => under_way && self.message_began + self.door.config.limits.message <= now,
        };
        endless.then_some(Event::Expired)
    }

    /// Until when the peer may be silent from `now` on.
    fn due(&self, now: Instant) -> Instant {
        let limits = &self.door.config.limits;
        let due = match (self.association.state(), self.closing) {
            (_, Some((since, _))) => since + CLOSE_WAIT,
            (State::AwaitRequest, None) => self.request_due,
            _ if self.association.message_under_way() => {
                (now + limits.dimse).min(self.message_began + limits.message)
            }
            _ => now + limits.idle,
        };
        self.stop_due.map_or(due, |stop| due.min(stop))
    }

    /// Does what the association says; false when the connection is at its end.
    async fn act(&mut self, action: Action) -> io::Result<bool> {
        self.note_end(&action);
        match action {
            Action::Nothing => {}
            Action::Accept(accept) => {
                if !self.standing.establish() {
                    return Ok(false);
                }
                let metrics = &self.intake.metrics;
                metrics.associations_accepted.inc();
                metrics.associations.inc();
                self.open = Some(Open(metrics.associations.clone()));
                self.note_begin(&accept);
                self.write_pdu(accept.into()).await?;
            }
            Action::Reject(reject, _) => {
                self.closing = Some((Instant::now(), 0));
                self.write_pdu(reject.into()).await?;
            }
            Action::Release => {
                self.closing = Some((Instant::now(), 0));
                self.write_pdu(Pdu::ReleaseRP).await?;
            }
            Action::Abort(source, _) => {
                self.closing = Some((Instant::now(), 0));
                self.store = None;
                self.write_pdu(Pdu::AbortRQ { source }).await?;
            }
            Action::Message(step) => self.step(step).await?,
            Action::Close(_) => return Ok(false),
        }
        Ok(true)
    }

    async fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Nothing => Ok(()),
            Step::Echo { context, message_id, sop_class } => {
                self.intake.metrics.echo_answers.inc();
                let response = Response {
                    field: field::C_ECHO_RSP,
                    responded_to: message_id,
                    sop_class,
                    status: status::SUCCESS,
                    ..Response::default()
                };
                self.respond(context, response).await
            }
            Step::Unrecognized { context, field, message_id, sop_class, sop_instance } => {
                let response = Response {
                    field: field | field::RESPONSE,
                    responded_to: message_id,
                    sop_class,
                    sop_instance,
                    status: status::UNRECOGNIZED_OPERATION,
                    comment: "this node does not serve that here".into(),
                    ..Response::default()
                };
                self.respond(context, response).await
            }
            Step::Store { context, request } => {
                let has_data_set = request.has_data_set;
                let config = &self.door.config;
                self.store = Some(Store::begin(&self.intake.custody, config, context, request));
                if has_data_set { Ok(()) } else { self.finish_store().await }
            }
            Step::Service { context, request } => self.begin_service(context, request).await,
            Step::Cancel { message_id } => self.cancel(message_id).await,
            Step::Answered(response) => {
                self.answered(&response);
                Ok(())
            }
            Step::Data { data, last } => {
                let pushed = match (&mut self.store, &mut self.performing) {
                    (Some(store), _) => store.push(&data).await,
                    (None, Some(performing)) => performing.push(&data),
                    (None, None) => Ok(()),
                };
                if let Err(endless) = pushed {
                    self.pending = Some(Event::Endless(endless));
                    return Ok(());
                }
                // Given back before the next read, so that the buffer is used again.
                drop(data);
                match (last, &self.store) {
                    (false, _) => Ok(()),
                    (true, Some(_)) => self.finish_store().await,
                    (true, None) => self.finish_service().await,
                }
            }
        }
    }

    async fn finish_store(&mut self) -> io::Result<()> {
        let State::Established(established) = self.association.state() else { return Ok(()) };
        let Some(store) = self.store.take() else { return Ok(()) };
        let peer: Admitted = established.admitted.clone();
        let context = store.context();
        let intake = self.intake.clone();
        let Answered { response, length, why } =
            store.finish(&intake.custody, &*intake.router, &peer).await;
        intake.count_answer(response.status, length);
        if response.status == status::SUCCESS {
            self.tally.stored += 1;
            self.tally.bytes += length.unwrap_or(0);
        } else {
            self.tally.refused += 1;
            if self.tally.last_refusal.replace(response.status) != Some(response.status) {
                tracing::warn!(
                    from = %self.from,
                    calling = %peer.calling,
                    status = format_args!("{:04X}", response.status),
                    comment = response.comment,
                    why,
                    "C-STORE refused; the same again on this association is counted at its end"
                );
            }
        }
        self.respond(context, response).await
    }

    async fn respond(&mut self, context: u8, response: Response) -> io::Result<()> {
        let State::Established(established) = self.association.state() else { return Ok(()) };
        let length = established.write_length;
        self.out.clear();
        put_command(&mut self.out, context, &Command::Response(response).encode(), length);
        self.write().await
    }

    async fn write_pdu(&mut self, pdu: Pdu) -> io::Result<()> {
        self.out.clear();
        put_pdu(&mut self.out, &pdu);
        self.write().await
    }

    async fn write(&mut self) -> io::Result<()> {
        let limit = self.door.config.limits.dimse;
        timeout(limit, self.stream.write(&self.out)).await.map_err(io::Error::from)?
    }

    fn note_begin(&self, accept: &AssociationAC) {
        let (from, tls) = (self.from, matches!(self.stream, Stream::Tls(_)));
        let (calling, called) = (&accept.calling_ae_title, &accept.called_ae_title);
        let contexts = accept.presentation_contexts.len();
        let State::Established(established) = self.association.state() else { return };
        let accepted = established.contexts.len();
        tracing::info!(%from, calling, called, tls, contexts, accepted, "association opened");
    }

    /// Logs and counts the end of an association, once.
    fn note_end(&mut self, action: &Action) {
        let from = self.from;
        let Tally { stored, refused, bytes, .. } = self.tally;
        match action {
            Action::Reject(_, refusal) => {
                let (calling, called) = self.association.asked().unwrap_or_default();
                self.intake.refused(from, calling, called, *refusal);
            }
            Action::Release => {
                tracing::info!(%from, stored, refused, bytes, "association released");
            }
            Action::Abort(_, cause) => {
                tracing::warn!(%from, stored, refused, bytes, %cause, "association aborted");
            }
            Action::Close(Cause::Ended) => {}
            Action::Close(cause) if self.open.is_some() => {
                tracing::warn!(%from, stored, refused, bytes, %cause, "association lost");
            }
            Action::Close(cause) => {
                // A port scan or a load balancer's probe; nothing was promised.
                tracing::debug!(%from, %cause, "connection without association");
            }
            Action::Nothing | Action::Accept(_) | Action::Message(_) => return,
        }
        self.open = None;
        self.end_services();
    }
}

impl Intake {
    fn refused(&self, from: SocketAddr, calling: &str, called: &str, refusal: Refusal) {
        self.metrics.associations_refused.with_label_values(&[refusal.word()]).inc();
        tracing::warn!(%from, calling, called, reason = %refusal, "association refused");
    }

    fn tls_refused(&self, from: SocketAddr, reason: &str) {
        self.metrics.associations_refused.with_label_values(&["tls"]).inc();
        tracing::warn!(%from, reason, "TLS handshake refused");
    }

    fn count_answer(&self, status: u16, length: Option<u64>) {
        self.metrics.store_answers.with_label_values(&[&format!("{status:04X}")]).inc();
        if let Some(length) = length {
            self.metrics.received.with_label_values(&["dicom"]).inc();
            self.metrics.received_bytes.with_label_values(&["dicom"]).inc_by(length);
        }
    }
}
