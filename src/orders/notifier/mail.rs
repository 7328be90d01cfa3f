//! Notices by e-mail: SMTP submission (RFC 6409) with STARTTLS or TLS, or a relay on a line that
//! needs none. The message is RFC 5322 with MIME, text in UTF-8.
//!
//! Every recipient has a transaction of its own, so that one wrong address keeps no other person
//! from knowing. Message-ID is that of the notice, the same at every try.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::Failure;
use super::webhook::secret;
use crate::cargo::{NodeName, peer_text};
use crate::clock::Timestamp;

/// How the line to the server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS by STARTTLS, or no mail.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// None: a relay on this machine, or on a network that the configuration names.
    None,
}

/// The server that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the line is protected.
    pub protection: Protection,
    /// File of authorities that are believed; absent: the system's.
    pub trust: Option<PathBuf>,
    /// Who writes.
    pub from: Mailbox,
    /// User and the file with the password, read at every try.
    pub user: Option<(String, PathBuf)>,
    /// Longest wait for one answer of the server.
    pub timeout: Duration,
}

/// One mail.
#[derive(Debug)]
pub(super) struct Mail<'a> {
    pub(super) node: &'a NodeName,
    pub(super) id: &'a str,
    pub(super) at: Timestamp,
    pub(super) to: &'a [Mailbox],
    pub(super) subject: String,
    pub(super) text: String,
}

impl Mail<'_> {
    fn message(self, relay: &Relay) -> Result<Message, Failure> {
        let header = |name, value: String| {
            let name = HeaderName::new_from_ascii_str(name);
            HeaderValue::new(name, value)
        };
        let at = jiff::Timestamp::from_millisecond(self.at.0).unwrap_or_default();
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000");
        let mut message = Message::builder()
            .from(relay.from.clone())
            .subject(self.subject)
            .message_id(Some(format!("<{}@{}>", self.id, self.node)))
            .raw_header(header("Date", date.to_string()))
            .raw_header(header("Auto-Submitted", "auto-generated".into()));
        for to in self.to {
            message = message.to(to.clone());
        }
        let made = message.singlepart(SinglePart::plain(self.text));
        made.map_err(|e| Failure::of_one(format!("the mail cannot be written: {e}")))
    }
}

/// Sends a mail to all who have not got it yet; `taken` are those who have. A recipient that the
/// server refuses for good is told, and counts as served while another one is.
pub(super) async fn send(
    relay: &Relay,
    mail: Mail<'_>,
    taken: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let to: Vec<Mailbox> = mail.to.to_vec();
    let message = mail.message(relay)?.formatted();
    let transport = transport(relay).await?;
    let mut refused = None;
    for to in to {
        if taken.contains(&to.email.to_string()) {
            continue;
        }
        let envelope = Envelope::new(Some(relay.from.email.clone()), vec![to.email.clone()]);
        let envelope = envelope.map_err(|e| Failure::of_one(e.to_string()))?;
        // Some ten answers make a transaction.
        let limit = relay.timeout * 10;
        let sent = tokio::time::timeout(limit, transport.send_raw(&envelope, &message)).await;
        match sent.map_err(|_| Failure::of_all("the server is too slow".into()))? {
            Ok(_) => drop(taken.insert(to.email.to_string())),
            Err(e) => match judge(&e) {
                failure if failure.all => return Err(failure),
                failure => refused = Some(failure),
            },
        }
    }
    match refused {
        Some(failure) if taken.is_empty() => Err(failure),
        Some(Failure { words, .. }) => {
            tracing::warn!(words, "a recipient of a notice is refused; the others have it");
            Ok(())
        }
        None => Ok(()),
    }
}

async fn transport(relay: &Relay) -> Result<AsyncSmtpTransport<Tokio1Executor>, Failure> {
    let wrong = |e: lettre::transport::smtp::Error| Failure::of_all(e.to_string());
    let tls = match relay.protection {
        Protection::None => Tls::None,
        protection => {
            let mut tls = TlsParameters::builder(relay.host.clone());
            if let Some(file) = &relay.trust {
                let words = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
                let read = tokio::fs::read(file).await;
                let pem = read.map_err(|e| Failure::of_all(words(&e)))?;
                let authorities =
                    Certificate::from_pem(&pem).map_err(|e| Failure::of_all(words(&e)))?;
                tls =
                    tls.certificate_store(CertificateStore::None).add_root_certificate(authorities);
            }
            let tls = tls.build().map_err(wrong)?;
            match protection {
                Protection::Tls => Tls::Wrapper(tls),
                _ => Tls::Required(tls),
            }
        }
    };
    // "Dangerous" because the caller chooses the protection, as the configuration does here.
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&relay.host)
        .port(relay.port)
        .tls(tls)
        .timeout(Some(relay.timeout));
    if let Some((user, file)) = &relay.user {
        let password = secret(file).await?;
        transport = transport.credentials(Credentials::new(user.clone(), password));
    }
    Ok(transport.build())
}

/// A 5xx answer stands for this mail, unless it refuses the login; all else for the server.
fn judge(error: &lettre::transport::smtp::Error) -> Failure {
    use std::error::Error;
    let mut words = error.to_string();
    if let Some(source) = error.source().map(ToString::to_string)
        && !words.contains(&source)
    {
        words = format!("{words}: {source}");
    }
    let words = peer_text(&words);
    let code = error.status().map_or(0, u16::from);
    let login = matches!(code, 530 | 534 | 535 | 538 | 454);
    match error.is_permanent() && !login {
        true => Failure::of_one(words),
        false => Failure::of_all(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_in_japanese_is_ascii_on_the_line_and_has_one_name_at_every_try() {
        let relay = Relay {
            host: "127.0.0.1".into(),
            port: 25,
            protection: Protection::None,
            trust: None,
            from: "hikyaku <hikyaku@hospital.example>".parse().unwrap(),
            user: None,
            timeout: Duration::from_secs(30),
        };
        let node: NodeName = "hospital".parse().unwrap();
        let to = ["技師 <ct@hospital.example>".parse().unwrap()];
        let make = || {
            let mail = Mail {
                node: &node,
                id: "0011",
                at: Timestamp(1_795_000_000_123),
                to: &to,
                subject: "検査に対応が必要です：19/20\r\nBcc: x@y.example".into(),
                text: "報告された 20 件のうち 1 件が未到着です。\n".into(),
            };
            String::from_utf8(mail.message(&relay).unwrap().formatted()).unwrap()
        };
        let mail = make();
        assert!(mail.is_ascii(), "{mail}");
        assert!(mail.contains("\r\nMessage-ID: <0011@hospital>\r\n"), "{mail}");
        assert!(mail.contains("\r\nAuto-Submitted: auto-generated\r\n"), "{mail}");
        assert!(mail.contains("\r\nDate: Wed, 18 Nov 2026 11:06:40 +0000\r\n"), "{mail}");
        assert_eq!(mail.matches("\r\nDate:").count(), 1, "{mail}");
        assert!(!mail.contains("\r\nBcc:"), "{mail}");
        assert_eq!(mail, make(), "byte for byte");
    }
}
