//! `[[orders.notice]]` and `[orders.mail]`: who is told what, how soon, and by which channel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use lettre::message::Mailbox;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use toml::de::DeValue;

use crate::inquiry::Tls;
use crate::intake::Network;
use crate::orders::letter::Link;
use crate::orders::notice::{NoticeRules, Rule};
use crate::orders::notifier::{self, Protection, Relay, Way, Webhook};
use crate::orders::verdict::What;
use crate::orders::words::Language;
use crate::routing::Pattern;

use super::Config;
use super::orders::OrdersSection;
use super::reader::Section;
use super::rooms::{TlsError, authorities, unusable};
use super::source::Source;
use super::value::*;

/// From the last word on a study to the notice that something lacks: what a technologist can wait.
const SOON: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Files by the keys that name them.
type Named<'a> = Vec<(String, &'a Path)>;

/// `[[orders.notice]]`: one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeSection {
    /// Who is told of what, and when.
    pub rule: Rule,
    /// How long a notice is tried.
    pub give_up: Duration,
    /// Languages of mails.
    pub languages: Vec<Language>,
    /// Where a link leads.
    pub link: Option<Link>,
    /// Where notices are posted.
    pub webhook: Option<WebhookSection>,
    /// Who gets mail.
    pub mail: Vec<Mailbox>,
}

/// Where notices are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSection {
    /// The address.
    pub url: Uri,
    /// File with the bearer token.
    pub token: Option<PathBuf>,
    /// Authorities that are believed; absent: the system's.
    pub trust: Option<PathBuf>,
}

/// `[orders.mail]`: the server that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSection {
    /// The server.
    pub server: HostPort,
    /// How the line is protected.
    pub protection: Protection,
    /// Networks to which mail may go unprotected.
    pub plain_networks: Vec<Network>,
    /// Authorities that are believed; absent: the system's.
    pub trust: Option<PathBuf>,
    /// Who writes.
    pub from: Mailbox,
    /// User, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

pub(super) fn notices(s: &mut Section<'_, '_>) -> Vec<(usize, NoticeSection)> {
    s.tables("notice", notice)
}

fn notice(s: &mut Section<'_, '_>) -> Option<NoticeSection> {
    const LANGUAGES: &[(&str, &[Language])] = &[
        ("en", &[Language::English]),
        ("ja", &[Language::Japanese]),
        ("both", &[Language::Japanese, Language::English]),
    ];
    let name = s.need("name", text);
    let stations = s.one_or_list("for", pattern).unwrap_or_default();
    let modalities = s.one_or_list("modality", pattern).unwrap_or_default();
    let about = s.one_or_list("about", about).map(BTreeSet::from_iter);
    let about = about.unwrap_or_else(|| NoticeRules::default().about);
    let within = s.or("within", "\"2m\"", duration_from(Duration::from_secs(2)));
    let give_up = s.or("give_up", "\"1d\"", duration);
    let languages = s.or("language", "\"en\"", word(LANGUAGES)).to_vec();
    let link = s.maybe("link", parsed::<Link>);
    let webhook = s.maybe_table("webhook", |s| {
        let url = s.need("url", url);
        let (token, trust) = (s.maybe_path("token"), s.maybe_path("trust"));
        Some(WebhookSection { url: url?, token, trust })
    });
    let mail = s.maybe_table("mail", |s| s.need_one_or_list("to", parsed::<Mailbox>));
    let rule = Rule { name: name?, stations, modalities, rules: NoticeRules { within, about } };
    let mail = mail.unwrap_or_default();
    Some(NoticeSection { rule, give_up, languages, link, webhook, mail })
}

pub(super) fn mail(s: &mut Section<'_, '_>) -> Option<MailSection> {
    const PROTECTION: &[(&str, Protection)] =
        &[("starttls", Protection::StartTls), ("tls", Protection::Tls), ("none", Protection::None)];
    let server = s.need("server", host_port);
    let protection = s.or("tls", "\"starttls\"", word(PROTECTION));
    let plain_networks = s.one_or_list("plain_networks", network).unwrap_or_default();
    let trust = s.maybe_path("trust");
    let from = s.need("from", parsed::<Mailbox>);
    let (user, password) = (s.maybe("user", text), s.maybe_path("password"));
    if user.is_some() != password.is_some() {
        let lonely = if user.is_some() { "user" } else { "password" };
        s.problem(lonely, "stands alone", "give user and password together, or neither");
    }
    let timeout = s.or("timeout", "\"30s\"", duration);
    Some(MailSection {
        server: server?,
        protection,
        plain_networks,
        trust,
        from: from?,
        user: user.zip(password),
        timeout,
    })
}

fn pattern(value: &DeValue<'_>) -> Result<Pattern, Wrong> {
    let written = text(value)?;
    let advice = "write a name; * and ? are wildcards";
    Pattern::new(&written).map_err(|e| wrong(e.to_string(), advice))
}

fn about(value: &DeValue<'_>) -> Result<What, Wrong> {
    let written = text(value)?;
    let known = What::named(&written).filter(|what| what.needs_attention());
    known.or_else(|| What::of_report(&written)).ok_or_else(|| {
        let advice = "the words are those of `hikyaku missing`, such as short, overdue, \
                      patient-mismatch, withdrawn, and those of reports, such as critical-result, \
                      report-held (docs/critical-results.md)";
        wrong(format!("\"{written}\" is nothing that needs attention"), advice)
    })
}

fn url(value: &DeValue<'_>) -> Result<Uri, Wrong> {
    let written = text(value)?;
    let advice = "write an address such as https://console.example/notices";
    let uri: Uri =
        written.parse().map_err(|e| wrong(format!("\"{written}\" cannot be read: {e}"), advice))?;
    let host = uri.host().unwrap_or_default();
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(wrong("holds a user or a password", "write token = the path of a file"));
    }
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if is_here(host) => Ok(uri),
        Some("http") => {
            Err(wrong("is not encrypted", "write https://; http:// is for this machine alone"))
        }
        _ => Err(wrong(format!("\"{written}\" is no web address"), advice)),
    }
}

fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.is_loopback())
}

/// Reports what does not fit together.
pub(super) fn check(orders: &OrdersSection, source: &mut Source<'_>) {
    let mut names = BTreeSet::new();
    for (i, section) in &orders.notices {
        let key = format!("orders.notice[{i}]");
        if !names.insert(&section.rule.name) {
            let what = format!("{} is the name of an earlier rule", section.rule.name);
            source.problem(&format!("{key}.name"), what, "give each rule a name of its own");
        }
        if section.webhook.is_none() && section.mail.is_empty() {
            source.problem(&key, "tells nobody", "write webhook, mail, or both");
        }
        if !section.mail.is_empty() && orders.mail.is_none() {
            let advice = "write an [orders.mail] section with server and from";
            source.problem(&format!("{key}.mail"), "has no server that takes mail", advice);
        }
        let rules = &section.rule.rules;
        if rules.within > DAY || section.give_up > 30 * DAY || section.give_up < rules.within {
            let advice = "within: 1 day at most; give_up: within to 30 days";
            source.problem(&key, "waits too long, or gives up too soon", advice);
        }
        let late = orders.rules.settle + rules.within > SOON;
        if late && rules.about.contains(&What::Short) {
            source.warning(
                &format!("{key}.within"),
                "and orders.settle come to more than five minutes together",
                "the patient may have left by then: make one of them shorter",
            );
        }
    }
    let all = || orders.notices.iter().map(|(_, section)| &section.rule);
    let of_orders = |rule: &Rule| rule.stations.is_empty() || !rule.modalities.is_empty();
    let overdue = all().any(|rule| rule.rules.about.contains(&What::Overdue));
    if overdue && orders.hl7.is_some() && !all().any(of_orders) {
        source.warning(
            "orders.notice",
            "tells nobody of orders without images, which no station has sent",
            "add a rule without `for`, or give one a `modality`",
        );
    }
    if let Some(mail) = &orders.mail {
        check_mail(mail, source);
    }
}

fn check_mail(mail: &MailSection, source: &mut Source<'_>) {
    if mail.protection != Protection::None {
        return;
    }
    let host = &mail.server.host;
    let address: Option<IpAddr> = host.parse().ok();
    let declared = address.is_some_and(|ip| mail.plain_networks.iter().any(|n| n.contains(ip)));
    if !is_here(host) && !declared {
        source.problem(
            "orders.mail.tls",
            format!("is \"none\", but {host} is neither this machine nor in plain_networks"),
            "use starttls or tls, or write the relay's address and its network",
        );
    }
    if mail.user.is_some() && !is_here(host) {
        source.problem(
            "orders.mail.password",
            "would travel unprotected",
            "use starttls or tls, or leave user and password out",
        );
    }
}

impl OrdersSection {
    /// Files of secrets and of authorities that notices need, with their keys.
    pub(super) fn notice_files(&self) -> (Named<'_>, Named<'_>) {
        let (mut secrets, mut trust) = (Vec::new(), Vec::new());
        for (i, section) in &self.notices {
            let key = |name: &str| format!("orders.notice[{i}].webhook.{name}");
            let Some(webhook) = &section.webhook else { continue };
            secrets.extend(webhook.token.iter().map(|file| (key("token"), file.as_path())));
            trust.extend(webhook.trust.iter().map(|file| (key("trust"), file.as_path())));
        }
        if let Some(mail) = &self.mail {
            let password = mail.user.iter().map(|(_, file)| file.as_path());
            secrets.extend(password.map(|file| ("orders.mail.password".to_owned(), file)));
            let file = mail.trust.iter().map(PathBuf::as_path);
            trust.extend(file.map(|file| ("orders.mail.trust".to_owned(), file)));
        }
        (secrets, trust)
    }
}

fn relay(mail: &MailSection) -> Relay {
    Relay {
        host: mail.server.host.clone(),
        port: mail.server.port,
        protection: mail.protection,
        trust: mail.trust.clone(),
        from: mail.from.clone(),
        user: mail.user.clone(),
        timeout: mail.timeout,
    }
}

/// Reads the file of authorities, or those of the system.
fn webhook(section: &WebhookSection) -> Result<Webhook, TlsError> {
    let uri = section.url.clone();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let tls = match https {
        true => Some(tls(&host, section.trust.as_deref())?),
        false => None,
    };
    Ok(Webhook { host, port, uri, tls, token: section.token.clone() })
}

fn tls(host: &str, trust: Option<&Path>) -> Result<Tls, TlsError> {
    let roots = match trust {
        Some(file) => authorities(file)?,
        None => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                tracing::warn!("this system has no authorities: no notice can go to {host}");
            }
            Arc::new(roots)
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable(trust.unwrap_or(Path::new("the system's authorities"))))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server_name =
        ServerName::try_from(host.to_owned()).map_err(|_| TlsError::ServerName(host.to_owned()))?;
    Ok(Tls { config: Arc::new(config), server_name })
}

impl Config {
    /// The rules by which the registrar makes notices.
    pub(super) fn notice_rules(&self) -> Vec<Rule> {
        let notices = self.orders.iter().flat_map(|orders| &orders.notices);
        notices.map(|(_, section)| section.rule.clone()).collect()
    }

    /// What the notifier is started with; `None`: there are no notices.
    ///
    /// # Errors
    ///
    /// A file of authorities cannot be read or used.
    pub fn notifier(&self) -> Result<Option<notifier::Config>, TlsError> {
        let Some(orders) = self.orders.as_ref().filter(|orders| !orders.notices.is_empty()) else {
            return Ok(None);
        };
        let mut ways = BTreeMap::new();
        for (_, section) in &orders.notices {
            let way = Way {
                languages: section.languages.clone(),
                link: section.link.clone(),
                webhook: section.webhook.as_ref().map(webhook).transpose()?,
                mail: section.mail.clone(),
                give_up: section.give_up,
            };
            ways.insert(section.rule.name.clone(), way);
        }
        let (node, relay) = (self.node.name.clone(), orders.mail.as_ref().map(relay));
        Ok(Some(notifier::Config { node, ways, relay }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "[node]\nname = 'a'\n[dicom]\nlisten = '127.0.0.1:1'\nae_titles = 'A'\n\
                        allow = [{ address = '10.0.0.1' }]\n[[destination]]\nname = 'f'\n\
                        kind = 'folder'\npath = 'f'\n[[route]]\nname = 'r'\nto = 'f'\n";

    /// What is said about a configuration with these lines.
    fn said(lines: &str) -> String {
        let text = format!("{NODE}{lines}");
        match Config::parse(&text, Path::new("x.toml")) {
            Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_rule_needs_a_channel_and_mail_a_server() {
        let rule = "[[orders.notice]]\nname = 'ct'\n";
        assert!(said(rule).contains("tells nobody"));
        let mail = format!("{rule}mail = {{ to = ['a@b.example'] }}\n");
        assert!(said(&mail).contains("has no server"));
        let server = "[orders.mail]\nserver = 'm.example:587'\nfrom = 'h@b.example'\n";
        assert_eq!(said(&format!("{mail}{server}")), "");
        assert!(
            said(&format!("{mail}{rule}mail = {{ to = 'a@b.example' }}\n{server}"))
                .contains("name of an earlier rule")
        );
    }

    #[test]
    fn nothing_goes_over_a_line_that_others_can_read_unless_it_is_declared() {
        let hook =
            |url: &str| said(&format!("[[orders.notice]]\nname='x'\nwebhook={{url='{url}'}}"));
        assert_eq!(hook("https://c.example/n"), "");
        assert_eq!(hook("http://127.0.0.1:8080/n"), "");
        assert!(hook("http://c.example/n").contains("is not encrypted"));
        assert!(hook("https://u:p@c.example/n").contains("holds a user"));
        let relay = |lines: &str| {
            said(&format!("[orders]\n[orders.mail]\nfrom='h@b.example'\ntls='none'\n{lines}"))
        };
        assert!(relay("server = '10.1.0.5:25'").contains("neither this machine nor"));
        assert_eq!(relay("server = '10.1.0.5:25'\nplain_networks = ['10.1.0.0/16']"), "");
        let login =
            "plain_networks = '10.1.0.0/16'\nserver = '10.1.0.5:25'\nuser='u'\npassword='p'";
        assert!(relay(login).contains("would travel unprotected"));
        assert_eq!(relay("server = '127.0.0.1:25'\nuser='u'\npassword='p'"), "");
    }

    #[test]
    fn words_and_times_are_checked() {
        let with = |lines: &str| {
            said(&format!(
                "[[orders.notice]]\nname='x'\nwebhook={{url='https://c.example'}}\n{lines}"
            ))
        };
        assert_eq!(with("about = ['short', 'withdrawn']"), "");
        assert_eq!(with("about = ['critical-known', 'question-asked']"), "");
        assert!(with("about = 'complete'").contains("nothing that needs attention"));
        assert!(with("within = '10m'").contains("five minutes"));
        assert!(with("within = '2d'").contains("waits too long"));
        assert!(with("link = 'https://c.example/{patient}'").contains("{study} and {order}"));
    }

    #[test]
    fn orders_without_images_need_a_rule_that_takes_them() {
        let hl7 = "[orders.hl7]\nlisten='127.0.0.1:2'\nallow='10.0.0.1'\n";
        let rule = |lines: &str| {
            said(&format!(
                "{hl7}[[orders.notice]]\nname='x'\nwebhook={{url='https://c.example'}}\n{lines}"
            ))
        };
        assert!(rule("for = 'CT1'").contains("orders without images"));
        assert_eq!(rule("for = 'CT1'\nmodality = 'CT'"), "");
        assert_eq!(rule(""), "");
    }
}
