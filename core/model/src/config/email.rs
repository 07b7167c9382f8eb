//! The receiver `email` in monitor.ron: a mail server, who writes, who is written to, and how weir signs in.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use email_address::EmailAddress;
use url::Host;

use super::Secret;
use super::credential::{secret, secret_text};
use super::decode::{Decoder, Fields, Finding, describe, join, key_path};
use super::diagnostic::did_you_mean;
use super::sections::SECOND;
use super::show::{Shown, duration, plain, secret as secret_shown, text};
use super::tree::{Field, Kind, Node};

/// What `handler:` is called for mail.
pub const EMAIL: &str = "email";
/// The one credential there is.
const CREDENTIAL: &str = "smtp";
/// More people are reached through a list's own address.
const RECIPIENTS_MAX: usize = 50;
const DISPLAY_NAME_LEN_MAX: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(60);
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
const TLS: [(&str, EmailTls); 3] = [
    ("starttls", EmailTls::StartTls),
    ("tls", EmailTls::Tls),
    ("none", EmailTls::None),
];

/// Where mail goes and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// A domain in ASCII, or an address without brackets.
    pub server: String,
    pub port: u16,
    pub tls: EmailTls,
    /// Certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    pub from: Mailbox,
    /// Never empty.
    pub to: Vec<Mailbox>,
    /// For a whole message, from the connection to the server's last word.
    pub timeout: Duration,
    /// None = the server takes mail from this machine as it is. Never without TLS. Goes to `server` alone.
    pub login: Option<Login>,
}

/// How the connection is encrypted; never less than it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmailTls {
    /// Required, after a few words in the open.
    #[default]
    StartTls,
    /// From the first byte.
    Tls,
    None,
}

impl EmailTls {
    fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// `ops@example.net`, or `Operations <ops@example.net>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    pub name: Option<String>,
    /// In ASCII.
    pub local_part: String,
    /// In ASCII.
    pub domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

impl Email {
    /// The server as people and logs are told it: `smtp.example.net:587`.
    pub fn address(&self) -> String {
        match self.server.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.server, self.port),
        }
    }

    fn is_loopback(&self) -> bool {
        match self.server.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.server == "localhost" || self.server.ends_with(".localhost"),
        }
    }

    pub(super) fn shown(&self) -> Vec<(&'static str, Shown)> {
        let Self {
            server,
            port,
            tls,
            ca_file,
            from,
            to,
            timeout,
            login,
        } = self;
        let tls = TLS.iter().find(|(_, it)| it == tls);
        let tls = tls.map_or("", |(name, _)| name);
        let ca_file = ca_file.as_ref().map(|path| text(&path.display()));
        let config = [
            ("server", Some(text(server))),
            ("port", Some(plain(*port))),
            ("tls", Some(text(tls))),
            ("ca_file", ca_file),
            ("from", Some(text(from))),
            ("to", Some(Shown::List(to.iter().map(text).collect()))),
            ("timeout", Some(duration(*timeout))),
        ];
        let config = config.into_iter();
        let config = config.filter_map(|(name, it)| Some((name.to_owned(), it?)));
        let mut fields = vec![
            ("handler", text(EMAIL)),
            ("config", Shown::Map(config.collect())),
        ];
        fields.extend(login.as_ref().map(|Login { user, password }| {
            let basic = vec![("user", text(user)), secret_shown(password)];
            let smtp = (CREDENTIAL.to_owned(), Shown::Call("Basic", basic));
            ("credentials", Shown::Map(vec![smtp]))
        }));
        fields
    }
}

impl Mailbox {
    /// Why not, in words that fit after "expected an address such as ...".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>').and_then(|it| it.rsplit_once('<')) {
            Some((name, address)) => (name.trim(), address.trim()),
            None => ("", text),
        };
        let name = name
            .strip_prefix('"')
            .and_then(|name| name.strip_suffix('"'))
            .unwrap_or(name);
        if name.chars().any(char::is_control) || name.contains(['<', '>', '"', '\\']) {
            return Err("the name holds a character that it cannot");
        }
        if name.chars().count() > DISPLAY_NAME_LEN_MAX {
            return Err("the name is too long");
        }
        let (local_part, domain) = address.rsplit_once('@').ok_or("there is no `@`")?;
        if !local_part.is_ascii() {
            return Err("only ASCII can stand before the `@`");
        }
        // A quoted one may hold white space: no mail server of today takes that.
        let spaced = local_part.contains(|c: char| c.is_whitespace() || c.is_control());
        if spaced || !EmailAddress::is_valid_local_part(local_part) {
            return Err("what stands before the `@` is not valid");
        }
        let domain = match Host::parse(domain) {
            Ok(Host::Domain(domain)) if EmailAddress::is_valid_domain(&domain) => domain,
            _ => return Err("what stands after the `@` is no domain"),
        };
        Ok(Self {
            name: (!name.is_empty()).then(|| name.to_owned()),
            local_part: local_part.to_owned(),
            domain,
        })
    }

    /// `ops@example.net`
    pub fn address(&self) -> String {
        format!("{}@{}", self.local_part, self.domain)
    }
}

impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address()),
            None => f.write_str(&self.address()),
        }
    }
}

/// What of `config` could be read.
struct Given {
    server: Option<String>,
    port: Option<u16>,
    tls: Option<EmailTls>,
    ca_file: Option<PathBuf>,
    from: Option<Mailbox>,
    to: Option<Vec<Mailbox>>,
    timeout: Duration,
}

/// Takes the fields of a receiver whose `handler` is `email`.
pub(super) fn email(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Option<Email> {
    fields.node("handler");
    let given = fields.required(d, "config", config);
    let login = fields.optional(d, "credentials", login).flatten();
    let given = given?;
    if given.tls == Some(EmailTls::None) && fields.has("credentials") {
        let finding = Finding::new("this password would go to the server unencrypted");
        let help = "set `tls` to \"starttls\" or \"tls\", or leave the password out";
        let path = join(&fields.path, "credentials");
        d.error(fields.offset_of("credentials"), &path, finding.help(help));
    }
    let tls = given.tls?;
    let email = Email {
        server: given.server?,
        port: given.port?,
        tls,
        ca_file: given.ca_file,
        from: given.from?,
        to: given.to?,
        timeout: given.timeout,
        login,
    };
    let warning = match tls {
        EmailTls::None if !email.is_loopback() => {
            Finding::new(format!("mail goes to {} unencrypted", email.address()))
                .help("only for a relay and a network that you trust")
        }
        EmailTls::StartTls if email.port == EmailTls::Tls.port() => {
            Finding::new("port 465 expects TLS from the first byte").help("set `tls` to \"tls\"")
        }
        _ => return Some(email),
    };
    let path = join(&fields.path, "config");
    d.warning(fields.offset_of("config"), &path, warning);
    Some(email)
}

fn config(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Given> {
    // As strict as any `( ... )`, though a receiver's `config` is written as a map.
    let entries = d.entries(node, path)?;
    let mut names = std::collections::BTreeSet::new();
    let entries: Vec<Field> = entries
        .into_iter()
        // A key that is given twice was reported.
        .filter(|(_, name, _)| names.insert(name.clone()))
        .map(|(offset, name, value)| Field {
            offset,
            name,
            value: value.clone(),
        })
        .collect();
    let mut fields = d.open(node.offset, path, &entries);
    let server = fields.required(d, "server", server);
    let port = |d: &mut Decoder<'_>, node: &Node, path: &str| {
        let port = d.count(node, path, 1, u32::from(u16::MAX))?;
        u16::try_from(port).ok()
    };
    let port = fields.optional(d, "port", port);
    let tls = fields.optional(d, "tls", |d, node, path| d.word(node, path, &TLS));
    let tls = tls.or_else(|| (!fields.has("tls")).then(EmailTls::default));
    let by_tls = tls.map(EmailTls::port).filter(|_| !fields.has("port"));
    let ca_file = fields.optional(d, "ca_file", Decoder::path);
    if let (Some(EmailTls::None), true) = (tls, fields.has("ca_file")) {
        let finding = Finding::new("`ca_file` has no effect without TLS");
        d.warning(fields.offset_of("ca_file"), &join(path, "ca_file"), finding);
    }
    let from = fields.required(d, "from", mailbox);
    let to = fields.required(d, "to", recipients);
    let timeout =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND, TIMEOUT_MAX);
    let timeout = fields.optional(d, "timeout", timeout);
    fields.finish(d);
    Some(Given {
        server,
        port: port.or(by_tls),
        tls,
        ca_file,
        from,
        to,
        timeout: timeout.unwrap_or(TIMEOUT),
    })
}

fn server(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    const EXPECTED: &str = "expected the host of a mail server such as \"smtp.example.net\"";
    let text = d.text(node, path)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    if text.contains('@') {
        // It may hold a password.
        d.error(node.offset, path, Finding::new(EXPECTED));
        return None;
    }
    let is_plain = |domain: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !domain.is_empty() && domain.chars().all(plain) && !domain.starts_with('.')
    };
    match Host::parse(&text) {
        Ok(Host::Domain(domain)) if is_plain(&domain) => return Some(domain),
        Ok(Host::Ipv4(address)) => return Some(address.to_string()),
        Ok(Host::Ipv6(address)) => return Some(address.to_string()),
        _ => {}
    }
    let finding = Finding::new(EXPECTED).found(describe(node));
    let help = text
        .contains(':')
        .then(|| "leave the scheme out; the port goes into `port`".to_owned());
    d.error(node.offset, path, finding.maybe_help(help));
    None
}

fn mailbox(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Mailbox> {
    let text = d.text(node, path)?;
    match Mailbox::parse(&text) {
        Ok(mailbox) => Some(mailbox),
        Err(why) => {
            let expected = "expected an address such as \"ops@example.net\" or \"Operations <ops@example.net>\"";
            let finding = Finding::new(format!("{expected}: {why}"));
            d.error(node.offset, path, finding.found(describe(node)));
            None
        }
    }
}

fn recipients(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Vec<Mailbox>> {
    let Kind::List(nodes) = &node.kind else {
        let finding = Finding::new("expected a list of addresses `[ ... ]`").found(describe(node));
        let help = matches!(node.kind, Kind::Text(_)).then(|| "write [\"...\"]".to_owned());
        d.error(node.offset, path, finding.maybe_help(help));
        return None;
    };
    if nodes.is_empty() || nodes.len() > RECIPIENTS_MAX {
        let finding = Finding::new(format!("expected 1 to {RECIPIENTS_MAX} addresses"));
        d.error(node.offset, path, finding);
        return None;
    }
    let mailboxes = d.list(node, path, mailbox)?;
    (mailboxes.len() == nodes.len()).then_some(mailboxes)
}

/// Nothing that stands in a credential is ever repeated in a message: it may be the secret itself.
fn login(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Option<Login>> {
    let mut login = None;
    for (offset, name, value) in d.entries(node, path)? {
        let path = key_path(path, &name);
        if name == CREDENTIAL {
            login = basic(d, value, &path);
        } else {
            let finding = Finding::new(format!("`{EMAIL}` has one credential, `{CREDENTIAL}`"));
            d.error(
                offset,
                &path,
                finding.maybe_help(did_you_mean(&name, [CREDENTIAL])),
            );
        }
    }
    Some(login)
}

fn basic(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Login> {
    let Kind::Call {
        name,
        fields: given,
    } = &node.kind
    else {
        return not_basic(d, node, path);
    };
    if name != "Basic" {
        return not_basic(d, node, path);
    }
    let mut fields = d.open(node.offset, path, given);
    let user = fields.required(d, "user", secret_text);
    let password = secret(d, &mut fields, false).flatten();
    if fields.has("origins") {
        fields.node("origins");
        let finding = Finding::new("this password goes to the receiver's own server alone");
        let (offset, path) = (fields.offset_of("origins"), join(path, "origins"));
        d.error(offset, &path, finding.help("leave `origins` out"));
    }
    fields.finish(d);
    Some(Login {
        user: user?,
        password: password?,
    })
}

fn not_basic<T>(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<T> {
    let finding = Finding::new("expected Basic(user: \"...\", env: \"MY_PASSWORD\")");
    let help = "mail servers are signed in to with a user and a password; it comes only by `env:` or `file:`";
    d.error(node.offset, path, finding.help(help));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            ("ops@example.net", "ops@example.net"),
            (" ops@EXAMPLE.net ", "ops@example.net"),
            (
                "Operations <ops@example.net>",
                "Operations <ops@example.net>",
            ),
            (
                "\"Ops, nights\" <ops@example.net>",
                "Ops, nights <ops@example.net>",
            ),
            (
                "Ops, nights <ops+weir@example.net>",
                "Ops, nights <ops+weir@example.net>",
            ),
            ("<ops@example.net>", "ops@example.net"),
            (
                "Žofie <z@bücher.example>",
                "Žofie <z@xn--bcher-kva.example>",
            ),
            ("root@localhost", "root@localhost"),
        ] {
            let mailbox = Mailbox::parse(text).unwrap();
            assert_eq!(mailbox.to_string(), shown);
            assert_eq!(Mailbox::parse(shown), Ok(mailbox));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "ops",
            "@example.net",
            "ops@",
            "a b@example.net",
            "ops@exa mple.net",
            "ops@example.net\r\nBcc: x@example.net",
            "Ops\r\nBcc: x@example.net <ops@example.net>",
            "a\"b <ops@example.net>",
            "žofie@example.net",
            "ops@example.net>",
            "ops@example.net, more@example.net",
        ] {
            assert!(Mailbox::parse(text).is_err(), "{text}");
        }
    }
}
