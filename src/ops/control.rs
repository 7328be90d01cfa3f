//! The control socket: HTTP/1.1 with JSON over a Unix socket that only the node's own user and
//! root can open. Everything that changes something is logged with the caller's system user.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`Status`] |
//! | `GET /studies?limit=N` | | studies, most recent first |
//! | `POST /list` | [`Filter`] | cargo with its duties |
//! | `POST /decide` | [`Decision`] | `{"changed": N}` |
//! | `POST /explain` | `{"study": UID}` | one [`StudyExplanation`] per distinct outcome |
//! | `POST /verify` | | [`Verified`] |
//! | `POST /confirm-clock` | | `{"confirmed": true}` |
//! | `GET /orders?state=WORD&limit=N`, `GET /missing` | | open cases |
//! | `POST /order`, `POST /case` | `{"number"}`, `{"study"}` | all that is known of it |
//! | `POST /order/add`, `POST /order/cancel`, `POST /link`, `POST /recall`, `POST /waive`, `POST /reinstate` | what is to change | in words |
//! | `GET /notices`, `POST /notice/test` | `{"rule"}` | undelivered notices; what became of a test |
//! | `POST /seen` | `{"study"}` | how many withdrawn images a person has acknowledged |
//! | `GET /reports?of=&limit=N&after=ID`, `GET /reports/held?limit=N` | | reports; documents that wait for a person |
//! | `POST /report` | `{"of"}`: study, order or id | all that is known of its reports |
//! | `POST /report/form` | `{"document", "form"}` | the bytes |
//! | `POST /report/match`, `/release`, `/discard`, `/again`, `/dismiss` | `{"document", "to"}`, `{"document"}`, `{"document", "reason"}`, `{"report"}`, `{"study"}` | in words |
//! | `GET /loops?overdue=true&limit=N`, `GET /criticals?all=true&limit=N` | | what is owed; critical results |
//! | `POST /critical/flag`, `/acknowledge`, `/close` | `{"report", "reason", "name"}`, `{"report", "name"}`, `{"report", "done", "name"}` | in words |
//! | `GET /notes?study=UID&limit=N`, `POST /note` | `{"study", "text", "answers"}` | questions and answers; the id |
//! | `POST /reload` | | what was applied, or 422 with what is wrong |

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::View;
use super::status::Status;
use crate::custody::{Action, CargoId, Filter};
use crate::dicom::header::{self, Reading};
use crate::routing::{Explanation, Patient, Subject};

/// Name of the socket below `data`.
pub const SOCKET_NAME: &str = "control.sock";
/// Bytes of a body that are read to explain its routing.
const HEAD_BYTES: usize = 256 << 10;
/// Pieces of a study that one explanation looks at.
const EXPLAIN_MAX: usize = 5000;

/// What a person decides.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// About which duties.
    pub filter: Filter,
    /// What.
    pub action: Action,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Which study to explain.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ExplainRequest {
    /// Study Instance UID.
    pub study: String,
    /// Show values that identify the patient.
    #[serde(default)]
    pub patient: bool,
}

/// Why images of a study go where they go, by the rules in force now.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StudyExplanation {
    /// Images to which it applies.
    pub images: usize,
    /// One of them.
    pub example: CargoId,
    /// The rules.
    pub explanation: Explanation,
    /// The same for people.
    pub words: String,
}

/// What reading every body again has found.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Verified {
    /// Bodies that have their digest.
    pub whole: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is damaged, in words.
    pub damage: Vec<String>,
    /// What a kill left half written, in words: never answered with success.
    pub torn: Vec<String>,
}

/// The caller, as the kernel names it.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) String);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let uid = stream.io().peer_cred().map(|c| c.uid());
        Self(match uid {
            Ok(uid) => match nix::unistd::User::from_uid(uid.into()) {
                Ok(Some(user)) => user.name,
                _ => format!("uid {uid}"),
            },
            Err(_) => "unknown".into(),
        })
    }
}

/// Opens the socket below `data`, replacing one that an earlier process left.
///
/// # Errors
///
/// The folder is not writable.
pub fn listen(data: &Path) -> io::Result<UnixListener> {
    let path = data.join(SOCKET_NAME);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until `shutdown`.
pub async fn serve(listener: UnixListener, view: Arc<View>, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/status", get(status))
        .route("/studies", get(studies))
        .route("/list", post(list))
        .route("/decide", post(decide))
        .route("/explain", post(explain))
        .route("/verify", post(verify))
        .route("/confirm-clock", post(confirm_clock))
        .route("/reload", post(reload))
        .merge(super::orders::routes())
        .merge(super::notices::routes())
        .merge(super::reports::routes())
        .with_state(view)
        .into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await });
    if let Err(e) = served.await {
        tracing::error!(error = %e, "the control socket has ended");
    }
}

type Shared = State<Arc<View>>;

fn answer<T: serde::Serialize>(found: Option<T>) -> Response {
    match found {
        Some(found) => Json(found).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "custody has stopped\n").into_response(),
    }
}

async fn status(State(view): Shared) -> Json<Status> {
    Json(Status::of(&view).await)
}

#[derive(serde::Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn studies(State(view): Shared, Query(query): Query<Limit>) -> Response {
    answer(view.custody.studies(query.limit.unwrap_or(100)).await)
}

async fn list(State(view): Shared, Json(filter): Json<Filter>) -> Response {
    answer(view.custody.list(filter).await)
}

async fn decide(
    State(view): Shared,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(decision): Json<Decision>,
) -> Response {
    let Decision { filter, action, reason } = decision;
    let said = format!("{filter:?}");
    let changed = view.custody.decide(filter, action, by.clone(), reason.clone()).await;
    tracing::info!(target: "audit", by, ?action, reason, filter = said, changed, "decision");
    answer(changed.map(|changed| serde_json::json!({ "changed": changed })))
}

async fn explain(State(view): Shared, Json(wanted): Json<ExplainRequest>) -> Response {
    let filter = Filter { study: Some(wanted.study), ..Filter::default() };
    let Some(cargo) = view.custody.list(filter).await else { return answer(None::<()>) };
    let patient = if wanted.patient { Patient::Shown } else { Patient::Masked };
    let mut found: Vec<StudyExplanation> = Vec::new();
    for piece in cargo.into_iter().take(EXPLAIN_MAX) {
        let Some((envelope, body)) = view.custody.read(piece.cargo).await else { continue };
        let Ok(Some(head)) = body.reader(0).next(HEAD_BYTES).await else { continue };
        let complete = head.len() as u64 == body.len();
        let header = header::read(&head, &envelope.transfer_syntax, complete);
        let explanation = explain_one(&view, &envelope, &header, patient);
        match found.iter_mut().find(|f| f.explanation == explanation) {
            Some(same) => same.images += 1,
            None => {
                let words = explanation.to_string();
                let example = piece.cargo;
                found.push(StudyExplanation { images: 1, example, explanation, words });
            }
        }
    }
    Json(found).into_response()
}

fn explain_one(
    view: &View,
    envelope: &crate::cargo::Envelope,
    reading: &Reading,
    patient: Patient,
) -> Explanation {
    let attribute = |keyword: &str| match reading {
        Reading::Header(header) => header.attribute(header::tag_of(keyword)?).map(str::to_owned),
        Reading::Empty | Reading::Unreadable => None,
    };
    view.routes.load().explain(&Subject { envelope, attribute: &attribute }, patient)
}

async fn verify(State(view): Shared) -> Response {
    let mut verified = Verified::default();
    let mut after = CargoId(0);
    loop {
        let Some(page) = view.custody.present(after, 200).await else { return answer(None::<()>) };
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (cargo, body) in page {
            let mut reader = body.reader(0);
            let end = loop {
                match reader.next(1 << 20).await {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            };
            match end {
                Ok(_) => {
                    verified.whole += 1;
                    verified.bytes += body.len();
                }
                Err(e) => verified.damage.push(format!("cargo {cargo}: {e}")),
            }
        }
    }
    let summary = view.custody.summary();
    verified.damage.extend(summary.findings.iter().cloned());
    verified.torn.extend(summary.torn.iter().cloned());
    Json(verified).into_response()
}

async fn confirm_clock(
    State(view): Shared,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
) -> Response {
    tracing::info!(target: "audit", by, "the clock is confirmed");
    let confirmed = view.custody.confirm_clock(by).await;
    Json(serde_json::json!({ "confirmed": confirmed })).into_response()
}

async fn reload(State(view): Shared, ConnectInfo(Caller(by)): ConnectInfo<Caller>) -> Response {
    tracing::info!(target: "audit", by, "reload asked for");
    match view.reload.ask(|reply| reply).await {
        Some(Ok(applied)) => Json(applied).into_response(),
        Some(Err(wrong)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(wrong)).into_response(),
        None => answer(None::<()>),
    }
}
