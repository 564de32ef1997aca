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
}

type Option_ = (&'static [&'static str], &'static [&'static str], Form);

const OPTIONS: [Option_; 16] = [
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
    (&["mongo", "mongosh", "mongodump", "mongorestore"], &["-p"], Form::Value),
    (&["curl"], &["-u", "-U", "--user", "--proxy-user"], Form::Behind(':')),
    (&["http", "https", "xh"], &["-a", "--auth"], Form::Behind(':')),
    (&["redis-cli"], &["-a"], Form::Value),
    (
        &["docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oc", "az"],
        &["-p"],
        Form::Login,
    ),
    (&["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami"], &["-w"], Form::Value),
    (&["smbclient", "rpcclient", "smbget"], &["-U", "--user"], Form::Behind('%')),
    (&["sqlcmd", "bcp", "osql"], &["-P"], Form::Value),
    (&["zip", "unzip", "zipcloak"], &["-P"], Form::Value),
    (&["mosquitto_pub", "mosquitto_sub"], &["-P"], Form::Value),
    (&["ipmitool"], &["-P"], Form::Value),
    (&["openssl"], &["-k", "-K"], Form::Value),
    (&["snmpwalk", "snmpget", "snmpset", "snmpbulkwalk"], &["-A", "-X", "-c"], Form::Value),
];

/// Which program's options are read: the last one that was named, be it behind `sudo` or `sh -c`.
#[derive(Debug, Default)]
pub(super) struct Programs {
    known: Vec<&'static Option_>,
    login: bool,
    /// Options that had their secret: what `sshpass` starts has a `-p` of its own.
    used: Vec<&'static str>,
}

impl Programs {
    /// Takes the next word.
    pub(super) fn word(&mut self, word: &str) -> Option<Takes> {
        let bare = word.trim_matches(['\'', '"']);
        if !bare.starts_with('-') {
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

    /// Whether one of those named has a secret behind `-p`, in some form.
    pub(super) fn take_p(&self) -> bool {
        self.known.iter().any(|(_, flags, _)| flags.contains(&"-p"))
    }

    fn reads(&self, word: &str, flag: &str, form: Form) -> Option<Takes> {
        let behind = word.strip_prefix(flag)?;
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
            Form::Value | Form::Login if !behind.is_empty() && !is_long => None,
            _ if behind.is_empty() => Some(Takes::Next),
            _ => Some(Takes::Attached(from)),
        }
    }
}
