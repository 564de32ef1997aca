//! Whose privileges the command gets. netspy needs many, the command has no use for them.
//!
//! Read from /etc/passwd and /etc/group directly: the C library's look-ups may ask the network.

use std::ffi::OsString;
use std::io;
use std::process::Command;

use rustix::process::{Gid, Uid, geteuid, getppid};
use rustix::thread;

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name, if there is one.
    pub name: Option<String>,
    uid: u32,
    gid: u32,
    /// All of them, the first one too.
    groups: Vec<u32>,
    home: Option<String>,
}

/// What the system knows of its users.
#[derive(Debug)]
struct Files {
    passwd: String,
    group: String,
}

/// How the programs that give a user another's privileges say whose command it is.
const RAISERS: [(&str, &str); 3] =
    [("sudo", "SUDO_UID"), ("doas", "DOAS_USER"), ("pkexec", "PKEXEC_UID")];

/// The user of `--user`; without one, whoever typed `sudo netspy run`. `None` leaves things as they
/// are.
pub fn chosen(asked: Option<&str>) -> Result<Option<Account>, String> {
    let Some(name) = asked else {
        return match invoked_by() {
            Some((variable, name)) => {
                let found = Files::read().account(&name);
                let no_user = |why| format!("whoever runs netspy ({variable}={name}): {why}");
                found.map(Some).map_err(no_user)
            }
            None => Ok(None),
        };
    };
    let account = Files::read().account(name).map_err(|why| format!("--user {name}: {why}"))?;
    match geteuid() {
        me if me.as_raw() == account.uid => Ok(None),
        me if me.is_root() => Ok(Some(account)),
        _ => Err(format!("--user {name}: only root may run something as another user")),
    }
}

/// Whoever ran netspy through sudo or its like, and the variable that says so. A shell of root, or a
/// script that it runs, is another matter, even if sudo has started it: whoever works there means to
/// be root.
fn invoked_by() -> Option<(&'static str, String)> {
    if !geteuid().is_root() {
        return None;
    }
    let parent = getppid()?.as_raw_nonzero();
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{parent}/status")).unwrap_or_default();
    invoked(comm.trim(), is_of_root(&status), |name| std::env::var(name).ok())
}

fn is_of_root(status: &str) -> bool {
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.and_then(|uids| uids.split_whitespace().next()) == Some("0")
}

/// sudo may stay as the parent, or become netspy, whose parent is the user's shell then.
fn invoked(
    parent: &str,
    parent_is_root: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let set = RAISERS.into_iter().filter(|(raiser, _)| parent == *raiser || !parent_is_root);
    let mut users = set.filter_map(|(_, name)| Some((name, variable(name)?)));
    users.find(|(_, user)| user != "0" && user != "root")
}

impl Files {
    fn read() -> Self {
        let read = |path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Files { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// A user by name or number, or two numbers, as UID:GID.
    fn account(&self, text: &str) -> Result<Account, String> {
        if let Some((uid, gid)) = text.split_once(':') {
            let (uid, gid) = (number(uid), number(gid));
            let (Some(uid), Some(gid)) = (uid, gid) else {
                return Err("not two numbers, UID:GID".to_owned());
            };
            return Ok(Account { name: None, uid, gid, groups: vec![gid], home: None });
        }
        let mut lines = self.passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = lines.find_map(|fields| match fields.as_slice() {
            [name, _, uid, gid, _, home, ..] if *name == text || *uid == text => {
                Some(((*name).to_owned(), number(uid)?, number(gid)?, (*home).to_owned()))
            }
            _ => None,
        });
        let Some((name, uid, gid, home)) = found else {
            let elsewhere = "users from elsewhere are named as --user UID:GID";
            return Err(format!("there is no such user in /etc/passwd; {elsewhere}"));
        };
        let mut groups = vec![gid];
        groups.extend(self.groups_of(&name).filter(|group| *group != gid));
        Ok(Account { name: Some(name), uid, gid, groups, home: Some(home) })
    }

    fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.group.lines().filter_map(move |line| {
            let mut fields = line.split(':').skip(2);
            let (gid, members) = (fields.next()?, fields.next()?);
            members.split(',').any(|member| member == user).then(|| number(gid))?
        })
    }
}

/// The largest stands for "no user" in the kernel's interface.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n != u32::MAX)
}

impl Account {
    /// The environment of a program that this user starts.
    pub fn prepare(&self, command: &mut Command) {
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        for name in ["SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER", "DOAS_USER", "PKEXEC_UID"]
        {
            command.env_remove(name);
        }
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = Vec::new();
        if let Some(name) = &self.name {
            variables.extend([("USER", name.into()), ("LOGNAME", name.into())]);
        }
        variables.extend(self.home.iter().map(|home| ("HOME", home.into())));
        variables
    }

    /// Makes the calling thread this user's, for good: what it starts has no capabilities, nor any
    /// way back. Other threads keep what they have, since the system calls are those of the thread
    /// and not those of the C library.
    pub fn become_it(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        thread::set_thread_groups(&groups)?;
        thread::set_thread_res_gid(gid, gid, gid)?;
        // Clears the capabilities, ambient ones too (capabilities(7)), as none are asked to stay.
        thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }

    /// `ann (uid 1000)`.
    pub fn describe(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} (uid {})", self.uid),
            None => format!("uid {}", self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n\
                      no:x:4294967295:1:no:/:/bin/sh\n";
        let group = "root:x:0:\nann:x:1000:ann\nwheel:x:10:bob,ann\nbobs:x:11:bob\nx\n";
        Files { passwd: passwd.to_owned(), group: group.to_owned() }
    }

    #[test]
    fn a_user_comes_with_all_their_groups_and_no_others() {
        for text in ["ann", "1000"] {
            let ann = files().account(text).unwrap();
            assert_eq!((ann.uid, ann.gid, &*ann.groups), (1000, 1000, &[1000, 10][..]));
            assert_eq!(ann.environment()[2], ("HOME", "/home/ann".into()));
            assert_eq!(ann.describe(), "ann (uid 1000)");
        }
        let other = files().account("7:8").unwrap();
        assert_eq!((other.uid, &*other.groups, other.name), (7, &[8][..], None));
        for text in ["carl", "1", "7:", ":", "no", "4294967295:1", ""] {
            assert!(files().account(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_command_that_was_itself_run_through_sudo_is_run_as_its_user() {
        let variable = |name: &str| (name == "SUDO_UID").then(|| "1000".to_owned());
        let ann = Some(("SUDO_UID", "1000".to_owned()));
        assert_eq!(invoked("sudo", true, variable), ann);
        // sudo became netspy: the parent is the user's shell.
        assert_eq!(invoked("bash", false, variable), ann);
        // A shell of root.
        assert_eq!(invoked("bash", true, variable), None);
        assert_eq!(invoked("sudo", true, |_| Some("0".to_owned())), None);
        assert_eq!(invoked("sudo", true, |_| None), None);
    }

    #[test]
    fn the_owner_of_a_process_is_read_from_its_status() {
        assert!(is_of_root("Name:\tsh\nUid:\t0\t0\t0\t0\n"));
        assert!(!is_of_root("Name:\tsh\nUid:\t1000\t0\t0\t0\n"));
        assert!(!is_of_root(""));
    }
}
