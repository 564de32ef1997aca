//! Options of well-known programs whose names do not tell that a secret stands there.

/// Where the secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// It is the next word.
    Next,
    /// It is what stands behind this in the next word.
    NextBehind(char),
    /// It is the rest of this word, from here on.
    Attached(usize),
    /// It is what stands behind this in the rest of the word.
    AttachedBehind(usize, char),
    /// It is this word.
    Whole,
    /// It is the password of the user in the next word, a URL that may be without its scheme.
    NextUrl,
    /// The next word is a cookie, if it is no file.
    NextCookie,
}

/// An option's form.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `-p SECRET`.
    Value,
    /// `-p SECRET` and `-pSECRET`.
    Either,
    /// `-pSECRET` alone: without it, the program asks.
    Glued,
    /// `-u USER:SECRET`.
    Behind(char),
    /// `-p SECRET`, where the word `login` came before: elsewhere it is a port.
    Login,
    /// `-x USER:SECRET@HOST`.
    Url,
    /// `-b NAME=SECRET`; without a sign of equality it is a file.
    Cookie,
}

type Option_ = (&'static [&'static str], &'static [&'static str], Form);

const OPTIONS: [Option_; 25] = [
    (
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlcheck",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
        ],
        &["-p"],
        Form::Glued,
    ),
    (&["7z", "7za", "7zr", "rar", "unrar"], &["-p"], Form::Glued),
    (&["sshpass"], &["-p"], Form::Either),
    (&["mongo", "mongosh", "mongodump", "mongorestore", "cqlsh"], &["-p"], Form::Value),
    (&["curl"], &["-u", "-U", "--user", "--proxy-user"], Form::Behind(':')),
    (&["curl"], &["-x", "--proxy", "--preproxy"], Form::Url),
    (&["curl"], &["-b", "--cookie"], Form::Cookie),
    (&["curl"], &["--oauth2-bearer"], Form::Value),
    (&["http", "https", "xh"], &["-a", "--auth"], Form::Behind(':')),
    (&["redis-cli"], &["-a"], Form::Value),
    (
        &["docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oc", "az"],
        &["-p"],
        Form::Login,
    ),
    (&["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami"], &["-w"], Form::Value),
    (&["smbclient", "rpcclient", "smbget"], &["-U", "--user"], Form::Behind('%')),
    (&["sqlcmd", "bcp", "osql"], &["-P"], Form::Either),
    (&["twine"], &["-p"], Form::Value),
    (&["zip", "unzip", "zipcloak"], &["-P"], Form::Value),
    (&["mosquitto_pub", "mosquitto_sub"], &["-P"], Form::Value),
    (&["ipmitool"], &["-P"], Form::Value),
    (&["openssl"], &["-k", "-K", "-hmac"], Form::Value),
    (&["openssl"], &["-macopt"], Form::Behind(':')),
    (&["ssh-keygen"], &["-N", "-P"], Form::Value),
    (&["useradd", "usermod"], &["-p"], Form::Value),
    (&["lftp"], &["-u"], Form::Behind(',')),
    (&["xfreerdp", "wfreerdp"], &["/p:"], Form::Glued),
    (&["snmpwalk", "snmpget", "snmpset", "snmpbulkwalk"], &["-A", "-X", "-c"], Form::Value),
];

/// Words that are secrets by their place: behind which other word of which program (none: behind its
/// name), after how many more, and how many of them. Options do not count.
const PLACES: [(&str, &str, u8, u8); 11] = [
    ("redis-cli", "auth", 0, 2),
    ("vault", "login", 0, 1),
    ("vault", "lookup", 0, 1),
    ("vault", "renew", 0, 1),
    ("vault", "revoke", 0, 1),
    ("mc", "alias", 3, 2),
    ("nmcli", "password", 0, 1),
    ("wpa_passphrase", "", 1, 1),
    ("htpasswd", "-b", 2, 1),
    ("rabbitmqctl", "add_user", 1, 1),
    ("rabbitmqctl", "change_password", 1, 1),
];

/// Which program's options are read: the last one that was named, be it behind `sudo` or `sh -c`.
#[derive(Debug, Default)]
pub(super) struct Programs {
    known: Vec<&'static Option_>,
    login: bool,
    /// Options that had their secret: what `sshpass` starts has a `-p` of its own.
    used: Vec<&'static str>,
    /// The program, as far as places tell.
    placed: &'static str,
    /// After so many words so many secrets.
    next: (u8, u8),
}

impl Programs {
    /// Takes the next word.
    pub(super) fn word(&mut self, word: &str) -> Option<Takes> {
        let bare = word.trim_matches(['\'', '"']);
        if let Some(takes) = self.by_place(bare) {
            return Some(takes);
        }
        if !bare.starts_with('-') && !bare.starts_with("/p:") {
            let name = bare.rsplit('/').next().unwrap_or(bare);
            if OPTIONS.iter().any(|(names, _, _)| names.contains(&name)) {
                self.known = OPTIONS.iter().filter(|(names, _, _)| names.contains(&name)).collect();
                self.login = false;
                self.used.clear();
            }
            self.login |= bare == "login";
            return None;
        }
        let flags =
            self.known.iter().flat_map(|(_, flags, form)| flags.iter().map(|f| (*f, *form)));
        let mut unused = flags.filter(|(flag, _)| !self.used.contains(flag));
        let (flag, takes) = unused.find_map(|(f, form)| Some((f, self.reads(bare, f, form)?)))?;
        self.used.push(flag);
        Some(takes)
    }

    fn by_place(&mut self, bare: &str) -> Option<Takes> {
        let lower = bare.to_ascii_lowercase();
        let place = PLACES.iter().find(|(program, word, ..)| {
            *program == self.placed && !word.is_empty() && *word == lower
        });
        if let Some((_, _, after, count)) = place {
            self.next = (*after, *count);
            return None;
        }
        let name = bare.rsplit('/').next().unwrap_or(bare);
        if let Some((program, word, after, count)) = PLACES.iter().find(|(p, ..)| *p == name) {
            self.placed = program;
            self.next = if word.is_empty() { (*after, *count) } else { (0, 0) };
            return None;
        }
        if bare.starts_with('-') || bare.contains('=') {
            return None;
        }
        // Of a lease, which is no secret, the id is a path.
        if self.placed == "vault" && bare.contains('/') {
            self.next = (0, 0);
        }
        match &mut self.next {
            (_, 0) => None,
            (0, count) => {
                *count -= 1;
                Some(Takes::Whole)
            }
            (after, _) => {
                *after -= 1;
                None
            }
        }
    }

    /// Whether one of those named has a secret behind `-p`, in some form.
    pub(super) fn take_p(&self) -> bool {
        self.known.iter().any(|(_, flags, _)| flags.contains(&"-p"))
    }

    fn reads(&self, word: &str, flag: &str, form: Form) -> Option<Takes> {
        // `-sSu`: letters of options without values in front of it.
        let is_cluster = matches!(form, Form::Behind(_)) && flag.len() == 2 && {
            let (letters, last) = word.split_at(word.len().saturating_sub(1));
            word.len() > 2
                && flag.ends_with(last)
                && letters.bytes().skip(1).all(|b| b.is_ascii_alphabetic())
        };
        let behind = if is_cluster { "" } else { word.strip_prefix(flag)? };
        let is_long = flag.starts_with("--");
        if !behind.is_empty() && is_long && !behind.starts_with('=') {
            return None;
        }
        let from = flag.len() + usize::from(is_long && !behind.is_empty());
        match form {
            Form::Login if !self.login => None,
            Form::Glued if behind.is_empty() => None,
            Form::Behind(separator) if behind.is_empty() => Some(Takes::NextBehind(separator)),
            Form::Behind(separator) => Some(Takes::AttachedBehind(from, separator)),
            Form::Value if !behind.is_empty() && !is_long => None,
            Form::Url if behind.is_empty() => Some(Takes::NextUrl),
            Form::Cookie if behind.is_empty() => Some(Takes::NextCookie),
            Form::Url | Form::Cookie => None,
            _ if behind.is_empty() => Some(Takes::Next),
            _ => Some(Takes::Attached(from)),
        }
    }
}
